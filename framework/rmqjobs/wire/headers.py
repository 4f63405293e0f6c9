"""Every header of the contract with its type, and which headers are the broker's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
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
REPLY_START = "rmqjobs-reply-start"  # anything: the start of a run is answered to `reply_to` too
FIRST_FAILED_AT = "rmqjobs-first-failed-at"  # integer, milliseconds since 1970 UTC
CHECKPOINT = "rmqjobs-checkpoint"  # string, JSON
REPLAYS = "rmqjobs-replays"  # integer, times an operator replayed it

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

# The broker's own: a copied death history makes it see a cycle and drop the message, CC and BCC would route it twice.
_BROKER = frozenset({"x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC"})
_BROKER_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-")

# All headers travel in one frame, of 128 KB by default.
MAX_HEADER_BYTES = 96 * 1024


def is_brokers(name: object) -> bool:
    """Whether the broker owns this header, or nobody can write it again (a name that is no text); it never travels on."""
    return not isinstance(name, str) or name in _BROKER or name.startswith(_BROKER_PREFIXES)


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
    """About how many bytes they take on the wire; never less than in truth by much."""
    return len(repr(headers).encode(errors="replace"))


def fit(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers, without the producer's own when all together would break the frame limit."""
    if size(headers) <= MAX_HEADER_BYTES:
        return headers
    most = MAX_HEADER_BYTES // 4
    kept = {name: value for name, value in headers.items() if name.startswith(OURS) and size({name: value}) <= most}
    return kept | {"rmqjobs-headers-left-out": len(headers) - len(kept)}
