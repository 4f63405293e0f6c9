"""The journal's batches: one message holds many events, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from rmqjobs.events import Event, EventKind
from rmqjobs.topology import Names
from rmqjobs.wire.jobs import Message

MAX_LINE = 32 * 1024  # one record must not make a batch too large for the broker
NDJSON = "application/x-ndjson"


def encode(names: Names, events: Iterable[Event], *, source: str) -> Message:
    """One message with all the events; the routing key says who writes."""
    return Message(names.events, source, b"\n".join(map(_line, events)), content_type=NDJSON)


def _line(event: Event) -> bytes:
    record = as_record(event)
    try:
        line = to_json(record, fallback=repr, inf_nan_mode="null")
    except ValueError:  # half characters, which a handler's log line or a foreign message may hold
        line = json.dumps(record, default=repr).encode()
    if len(line) > MAX_LINE:
        line = to_json(record | {"data": {"left_out_bytes": len(line)}}, fallback=repr)
    return line


def decode(body: bytes, source: str = "") -> Iterator[Event]:
    """The events of a batch; a line this version does not understand is left out."""
    for line in body.splitlines():
        try:
            yield _event(json.loads(line), source)
        except (ValueError, KeyError, TypeError):
            continue


def as_record(event: Event) -> dict[str, Any]:
    """The event's JSON object: a contract, printed by `rmqjobs events --json` too."""
    record: dict[str, Any] = {
        "kind": event.kind.value,
        "at": event.at.isoformat(timespec="milliseconds"),
        "job": event.job_id,
        "type": event.job_type,
    }
    if event.queue:
        record["queue"] = event.queue
    if event.attempt:
        record["attempt"] = event.attempt
    if event.data:
        record["data"] = dict(event.data)
    if event.source:
        record["source"] = event.source
    return record


def _event(record: dict[str, Any], source: str) -> Event:
    return Event(
        kind=EventKind(record["kind"]),
        at=datetime.fromisoformat(record["at"]),
        job_id=record["job"],
        job_type=record["type"],
        queue=record.get("queue", ""),
        attempt=record.get("attempt", 0),
        data=record.get("data", {}),
        source=record.get("source", source),
    )
