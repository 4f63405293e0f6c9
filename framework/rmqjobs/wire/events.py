"""The journal's batches: one message holds many events, one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from rmqjobs.events import Event, EventKind
from rmqjobs.failures import text_form
from rmqjobs.topology import Names
from rmqjobs.wire.jobs import Message
from rmqjobs.wire.values import as_json, plain

MAX_LINE = 32 * 1024  # one record must not make a batch too large for the broker
_HALF = b"\\ud"  # how a half character begins in JSON
MOST_ATTEMPTS = 10**6
NDJSON = "application/x-ndjson"
_EVENT = TypeAdapter(Event)
_TO_JSON = _EVENT.serializer.to_json
_FIELDS = tuple(field.name for field in fields(Event))


def batch(names: Names, lines: Iterable[bytes], *, source: str) -> Message:
    """One message with all the lines; the routing key says who writes."""
    return Message(names.events, source, b"\n".join(lines), content_type=NDJSON)


def encode(event: Event) -> bytes:
    """One line of a batch."""
    try:
        line = _TO_JSON(event, exclude_defaults=True, fallback=text_form, warnings=False)
    except Exception:  # noqa: BLE001 - half characters, endless depth: no record may harm its job
        data = from_json(as_json(event.data))
        line = as_json(as_record(replace(event, data=data if isinstance(data, dict) else {"unwritable": data})))
    if len(line) > MAX_LINE:
        line = encode(replace(event, data={"left_out_bytes": len(line)}))
    return line


def decode(body: bytes, source: str = "", *, about: str = "") -> Iterator[Event]:
    """The events of a batch; a line this version does not understand is left out.

    Args:
        body: The batch.
        source: Who wrote it.
        about: Only events of jobs whose id begins like this: the other lines are not even read.
    """
    sought = as_json(about)[1:-1]
    if sought not in body:
        return
    for line in body.splitlines():
        event = _event(line) if sought in line else None
        if event is not None and event.job.startswith(about):
            event.source = event.source or source
            yield event


def _event(line: bytes) -> Event | None:
    try:
        record = json.loads(line)  # unlike pydantic's, Python's reader takes half characters
        if _HALF in line.lower():
            record = plain(record)
        known = {name: record[name] for name in _FIELDS if name in record}
        known["kind"], known["at"] = EventKind(record["kind"]), datetime.fromisoformat(record["at"])
        event = Event(**known)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return event if _is_sound(event) else None


def _is_sound(event: Event) -> bool:
    """Whether each part is of its kind: anybody may write to the stream, and nobody who reads it should stumble."""
    texts = (event.job, event.type, event.queue, event.source)
    return (
        all(type(text) is str for text in texts)
        and type(event.attempt) is int
        and 0 <= event.attempt < MOST_ATTEMPTS
        and type(event.data) is dict
        and event.at.tzinfo is not None
    )


def as_record(event: Event) -> dict[str, Any]:
    """The event's JSON object, its time still a `datetime`: a contract, printed by `rmqjobs events --json` too."""
    record: dict[str, Any] = _EVENT.dump_python(event, exclude_defaults=True, warnings=False)
    return record
