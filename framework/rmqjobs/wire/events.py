"""The journal's batches: one message holds many events, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rmqjobs.events import Event
from rmqjobs.topology import Names
from rmqjobs.wire.jobs import Message

MAX_LINE = 32 * 1024  # one record must not make a batch too large for the broker
NDJSON = "application/x-ndjson"
_EVENT = TypeAdapter(Event)
_TO_JSON = _EVENT.serializer.to_json


def batch(names: Names, lines: Iterable[bytes], *, source: str) -> Message:
    """One message with all the lines; the routing key says who writes."""
    return Message(names.events, source, b"\n".join(lines), content_type=NDJSON)


def encode(event: Event) -> bytes:
    """One line."""
    try:
        line = _TO_JSON(event, exclude_defaults=True, fallback=repr, warnings=False)
    except ValueError:  # half characters, which a handler's log line or a foreign message may hold
        line = json.dumps(as_record(event), default=str).encode()
    if len(line) > MAX_LINE:
        line = encode(replace(event, data={"left_out_bytes": len(line)}))
    return line


def decode(body: bytes, source: str = "") -> Iterator[Event]:
    """The events of a batch; a line this version does not understand is left out."""
    for line in body.splitlines():
        try:
            event = _EVENT.validate_json(line)
        except ValidationError:
            continue
        event.source = event.source or source
        yield event


def as_record(event: Event) -> dict[str, Any]:
    """The event's JSON object, its time still a `datetime`: a contract, printed by `rmqjobs events --json` too."""
    record: dict[str, Any] = _EVENT.dump_python(event, exclude_defaults=True, warnings=False)
    return record
