"""What is sent to and from a child process: frames of a JSON head and a body of bytes. Never a pickle.

To the child: an order, with the payload as its body. From the child: reports, and for each order one answer, with the result
as its body. Exceptions are sent as text; the three signals keep their meaning.
"""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic_core import from_json, to_json

from rmqjobs.errors import JobError, Reject, Retry, Snooze
from rmqjobs.failures import Failure, failure_of, printable, remote_error, text_form
from rmqjobs.job import Job

LENGTHS = struct.Struct(">II")  # of the head and of the body
PERMIT = struct.Struct(">I")
DUMP = signal.SIGUSR2  # asks a child where its threads are
Head = dict[str, Any]
_TIMES = ("published_at", "scheduled_for", "period_start")
# Values that a header can have and JSON cannot.
_TAG = "\0rmqjobs"
_TAGGED: Mapping[type, Any] = {datetime: datetime.isoformat, bytes: bytes.hex, Decimal: str}
_UNTAGGED: Mapping[str, Any] = {"datetime": datetime.fromisoformat, "bytes": bytes.fromhex, "Decimal": Decimal}


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    try:
        encoded = to_json(head, fallback=text_form, inf_nan_mode="null")
    except ValueError:  # half characters inside
        encoded = json.dumps(head, default=text_form).encode()
    return b"".join((LENGTHS.pack(len(encoded), len(body)), encoded, body))


def pack_report(number: int, kind: str, data: Mapping[str, Any]) -> bytes:
    """What the handler of an order reports; data that JSON cannot carry must not make its job fail."""
    try:
        return pack({"number": number, "report": kind, "data": data})
    except (ValueError, RecursionError) as error:
        return pack({"number": number, "report": kind, "data": {"message": "", "unwritable": type(error).__name__}})


class Unpacker:
    """Gathers the bytes that have arrived and gives whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Head, bytes]]:
        """The frames that these bytes complete."""
        buffer = self._data
        buffer += data
        start = 0
        while len(buffer) - start >= LENGTHS.size:
            head_length, body_length = LENGTHS.unpack_from(buffer, start)
            body_at = start + LENGTHS.size + head_length
            end = body_at + body_length
            if len(buffer) < end:
                break
            head: Head = _read(bytes(buffer[start + LENGTHS.size : body_at]))
            body = bytes(buffer[body_at:end])
            start = end
            yield head, body
        del buffer[:start]


def _read(encoded: bytes) -> Any:
    try:
        return from_json(encoded)
    except ValueError:  # half characters, which only Python's own reader takes
        return json.loads(encoded)


def job_fields(job: Job) -> dict[str, Any]:
    """A job for the other side; fields with default values are left out."""
    fields: dict[str, Any] = {"id": job.id, "type": job.type, "attempt": job.attempt, "max_attempts": job.max_attempts}
    fields["queue"] = job.queue
    for name in ("schedule", "correlation_id", "state"):
        value = getattr(job, name)
        if value is not None:
            fields[name] = value
    for name in _TIMES:
        at = getattr(job, name)
        if at is not None:
            fields[name] = at.isoformat()
    if job.headers:
        fields["headers"] = json.dumps(dict(job.headers), default=_tagged)
    return fields


def job_of(fields: dict[str, Any], reporter: Any) -> Job:
    """The job on this side."""
    for name in _TIMES:
        if name in fields:
            fields[name] = datetime.fromisoformat(fields[name])
    if "headers" in fields:
        fields["headers"] = json.loads(fields["headers"], object_hook=_untagged)
    return Job(**fields, reporter=reporter)


def error_head(error: BaseException) -> Head:
    """What a handler raised, as plain data."""
    match error:
        case Retry():
            after = None if error.after is None else error.after.total_seconds()
            return {"signal": "retry", "reason": printable(error.reason), "after": after}
        case Reject():
            return {"signal": "reject", "reason": printable(error.reason)}
        case Snooze():
            return {
                "signal": "snooze",
                "until": error.until and error.until.isoformat(),
                "for": None if error.for_ is None else error.for_.total_seconds(),
            }
        case _:
            failure = failure_of(error)
            return {"signal": "error", "types": failure.types, "message": failure.message, "traceback": failure.traceback}


def error_of(head: Head) -> Exception:
    """The exception that `error_head` described."""
    match head["signal"]:
        case "retry":
            after = head["after"]
            return Retry(head["reason"], after=None if after is None else timedelta(seconds=after))
        case "reject":
            return Reject(head["reason"])
        case "snooze" if head["until"]:
            return Snooze(until=datetime.fromisoformat(head["until"]))
        case "snooze":
            return Snooze(for_=timedelta(seconds=head["for"]))
        case "error":
            return remote_error(Failure(tuple(head["types"]), head["message"], head["traceback"]))
        case unknown:
            return JobError(f"a child process sent {unknown!r}, which this version does not know")


def _tagged(value: object) -> object:
    form = _TAGGED.get(type(value))
    return {_TAG: type(value).__name__, "value": form(value)} if form else printable(value)


def _untagged(value: dict[str, Any]) -> object:
    return _UNTAGGED[value[_TAG]](value["value"]) if _TAG in value else value
