"""Every header of the contract with its type, and which headers are the broker's own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

from rmqjobs.errors import MalformedMessage

OURS = "rmqjobs-"

# On a job; each is optional.
ATTEMPT = "rmqjobs-attempt"  # integer, number of the next run, from 1
CRASHES = "rmqjobs-crashes"  # integer, times a process died under the job
UNHANDLED = "rmqjobs-unhandled"  # integer, times a worker had no handler for it
EXPIRES_AT = "rmqjobs-expires-at"  # integer, milliseconds since 1970 UTC
RUN_AT = "rmqjobs-run-at"  # likewise; for people and dashboards, the delay ladder does the waiting
SCHEDULE = "rmqjobs-schedule"  # string, name of the schedule that made the job
SCHEDULED_FOR = "rmqjobs-scheduled-for"  # integer, milliseconds since 1970 UTC: the tick's planned time
PERIOD_START = "rmqjobs-period-start"  # likewise: the tick stands for the time from here to its planned time
MARK = "rmqjobs-mark"  # string, of this publication: of several with the same job id, only the first to start runs
REPLY_START = "rmqjobs-reply-start"  # anything: the start of a run is reported to `reply_to` too
FIRST_FAILED_AT = "rmqjobs-first-failed-at"  # integer, milliseconds since 1970 UTC
CHECKPOINT = "rmqjobs-checkpoint"  # string, JSON
REPLAYS = "rmqjobs-replays"  # integer, times an operator replayed it
REPLAYED_AT = "rmqjobs-replayed-at"  # integer, milliseconds since 1970 UTC: a cancel that is older does not count any more

# On a dead letter, besides the job's.
REASON = "rmqjobs-reason"
ERROR_TYPE = "rmqjobs-error-type"
ERROR_MESSAGE = "rmqjobs-error-message"
TRACEBACK = "rmqjobs-traceback"
FINGERPRINT = "rmqjobs-fingerprint"
ATTEMPTS = "rmqjobs-attempts"  # integer, runs in all
FAILED_AT = "rmqjobs-failed-at"  # integer, milliseconds since 1970 UTC
QUEUE = "rmqjobs-queue"
WORKER = "rmqjobs-worker"
PLUGIN_VERSION = "rmqjobs-plugin-version"
PRIORITY = "rmqjobs-priority"  # integer, the job's; the dead letter has none, so that the oldest comes first
DROPPED_AT = "rmqjobs-dropped-at"  # integer, milliseconds since 1970 UTC
DROPPED_BECAUSE = "rmqjobs-dropped-because"

DEAD_LETTER = frozenset(
    {REASON, ERROR_TYPE, ERROR_MESSAGE, TRACEBACK, FINGERPRINT, ATTEMPTS, FAILED_AT, QUEUE, WORKER, PLUGIN_VERSION}
    | {PRIORITY}
    | {DROPPED_AT, DROPPED_BECAUSE}
)

# On a reply.
STATUS = "rmqjobs-status"  # "done", "dead" or, when it was asked for, "started"
RESULT_LEFT_OUT = "rmqjobs-result-left-out"  # integer, bytes of a result that was too large to be sent

# On a message of the control stream.
CONTROL_START = "rmqjobs-control-start"  # integer: who begins to read finds all that still counts from this offset on

# On any message of ours.
HEADERS_LEFT_OUT = "rmqjobs-headers-left-out"  # integer, how many had no room or could not be written again
FOR_PEOPLE = frozenset({TRACEBACK, ERROR_MESSAGE, WORKER, PLUGIN_VERSION})  # left out when a dead letter is too large

# The broker's own: a copied death history makes it see a cycle and drop the message, CC and BCC would route it twice.
_BROKER = frozenset({"x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC"})
_BROKER_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-")

MAX_SHORT_BYTES = 255  # AMQP writes the length of names, and of strings among the properties, in one byte
_LEAST = -(2**63)
_DEEPEST = 100
# All headers travel in one frame, of 128 KB by default.
MAX_HEADER_BYTES = 96 * 1024


def is_ours(name: str | bytes) -> bool:
    """Whether the header is one of the contract's; a name that is not UTF-8 arrives as bytes."""
    return isinstance(name, str) and name.startswith(OURS)


def is_brokers(name: str | bytes) -> bool:
    """Whether the broker owns this header; such a header never travels on."""
    return isinstance(name, str) and (name in _BROKER or name.startswith(_BROKER_PREFIXES))


def problem(value: object, depth: int = 0) -> str:
    """Why AMQP cannot carry a header's value; empty when it can."""
    if isinstance(value, (bool, str, bytes, datetime, Decimal, type(None))):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"has {value}, which is not a number that AMQP can carry"
    if isinstance(value, int):
        return "" if _LEAST <= value < -_LEAST else "has a number that does not fit into 64 bits"
    if not isinstance(value, (list, dict)):
        return f"has a value of type {type(value).__name__}, which AMQP cannot carry"
    if depth == _DEEPEST:
        return f"is nested over {_DEEPEST} levels deep"
    return next(filter(None, _problems_inside(value, depth)), "")


def _problems_inside(value: list[object] | dict[object, object], depth: int) -> Iterator[str]:
    if isinstance(value, list):
        yield from (problem(each, depth + 1) for each in value)
        return
    for name, each in value.items():
        if not isinstance(name, str):
            yield f"has the name {name!r:.80}, which is not text"
        elif len(name.encode(errors="replace")) > MAX_SHORT_BYTES:
            yield f"has a name of over {MAX_SHORT_BYTES} bytes: {name[:40]!r} …"
        yield problem(each, depth + 1)


def integer(headers: Mapping[str, Any], name: str, default: int, *, least: int = 0) -> int:
    """An integer header, or the default when it is absent; `MalformedMessage` when it is anything else."""
    value = headers.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise MalformedMessage(f"header {name} is {value!r:.80}: it must be an integer from {least}")
    return value


def instant(headers: Mapping[str, Any], name: str) -> datetime | None:
    """A header of milliseconds since 1970 UTC."""
    value = integer(headers, name, -1)
    if value < 0:
        return None
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise MalformedMessage(f"header {name} is {value}: no such time in milliseconds since 1970") from None


def milliseconds(at: datetime) -> int:
    """The way instants are written in headers."""
    return int(at.timestamp() * 1000)


def checkpoint(headers: Mapping[str, Any]) -> JsonValue:
    """The stored state of an earlier run, or None."""
    value = headers.get(CHECKPOINT)
    if value is None:
        return None
    try:
        state: JsonValue = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        raise MalformedMessage(f"header {CHECKPOINT} is {value!r:.80}: it must be a string of JSON") from None
    return state


def size(headers: Mapping[str, Any]) -> int:
    """About how many bytes the headers take on the wire; never far below the true number."""
    return len(repr(headers).encode(errors="replace"))


def fit(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers, without the producer's own when all together would break the frame limit."""
    if size(headers) <= MAX_HEADER_BYTES:
        return headers
    most = MAX_HEADER_BYTES // 4
    kept = {name: value for name, value in headers.items() if is_ours(name) and size({name: value}) <= most}
    return kept | {HEADERS_LEFT_OUT: len(headers) - len(kept)}
