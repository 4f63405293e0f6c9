"""Dead letters as messages: written by the worker (or by the broker itself), read and sent on by a review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rmqjobs.failures import Failure
from rmqjobs.fingerprint import fingerprint
from rmqjobs.retry import DeadReason
from rmqjobs.topology import Names, job_type_of_key
from rmqjobs.wire import headers as h
from rmqjobs.wire.jobs import Incoming, Message, job_type, kept_headers, resend, text_of

# Headers that would stop a replayed job from starting afresh.
_SPENT = h.DEAD_LETTER | {h.ATTEMPT, h.CRASHES, h.UNHANDLED, h.EXPIRES_AT, h.RUN_AT, h.FIRST_FAILED_AT}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job was given up, and where.

    Args:
        reason: In the words operators read.
        failure: What was raised.
        attempts: Runs in all.
        queue: Work queue, without the prefix.
        worker: Name of the worker.
        plugin_version: `name version` of the plugin's distribution.
    """

    reason: DeadReason
    failure: Failure
    attempts: int
    queue: str
    worker: str
    plugin_version: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as an operator sees it; unknown parts are empty or None."""

    id: str
    type: str
    queue: str
    reason: str
    error_type: str
    error_message: str
    traceback: str
    fingerprint: str
    attempts: int
    replays: int
    first_failed_at: datetime | None
    failed_at: datetime | None
    worker: str
    plugin_version: str
    dropped_at: datetime | None
    priority: int | None
    body: bytes
    headers: Mapping[str, Any]


PURGED = "purged"  # the reason of a job that an operator took out of its queue


def bury(names: Names, incoming: Incoming, cause: Cause, *, job_id: str, failed_at: datetime) -> Message:
    """The dead letter of a received message: body and foreign headers untouched, the cause in headers."""
    failure = cause.failure
    headers = kept_headers(incoming) | {
        h.REASON: cause.reason.value,
        h.ERROR_TYPE: failure.type,
        h.ERROR_MESSAGE: failure.message,
        h.TRACEBACK: failure.traceback,
        h.FINGERPRINT: fingerprint(failure.type, failure.message, failure.traceback),
        h.ATTEMPTS: cause.attempts,
        h.FAILED_AT: h.milliseconds(failed_at),
        h.QUEUE: cause.queue,
        h.WORKER: cause.worker,
        h.PLUGIN_VERSION: cause.plugin_version,
    }
    headers.setdefault(h.FIRST_FAILED_AT, headers[h.FAILED_AT])
    if incoming.properties.priority is not None:
        headers[h.PRIORITY] = incoming.properties.priority
    letter = resend(incoming, names.dead, cause.queue, headers, job_id=job_id, kind=job_type(incoming))
    return replace(letter, priority=None)


def read(incoming: Incoming, queue: str) -> DeadLetter:
    """A dead letter from its message; never refuses one, whoever put it there.

    A message the broker dead-lettered by itself has its reason in `x-first-death-reason`.
    """
    headers = incoming.properties.headers or {}
    death = _first_death(headers)
    return DeadLetter(
        id=text_of(incoming.properties.message_id or ""),
        type=text_of(incoming.properties.type or job_type_of_key(text_of(death.get("key", incoming.routing_key)))),
        queue=_text(headers, h.QUEUE) or queue,
        reason=_text(headers, h.REASON) or str(death.get("reason", "unknown")).replace("_", " "),
        error_type=_text(headers, h.ERROR_TYPE),
        error_message=_text(headers, h.ERROR_MESSAGE),
        traceback=_text(headers, h.TRACEBACK),
        fingerprint=_text(headers, h.FINGERPRINT),
        attempts=_count(headers, h.ATTEMPTS),
        replays=_count(headers, h.REPLAYS),
        first_failed_at=_at(headers, h.FIRST_FAILED_AT),
        failed_at=_at(headers, h.FAILED_AT) or death.get("at"),
        worker=_text(headers, h.WORKER),
        plugin_version=_text(headers, h.PLUGIN_VERSION),
        dropped_at=_at(headers, h.DROPPED_AT),
        priority=_priority(headers),
        body=incoming.body,
        headers={text_of(name): value for name, value in headers.items() if not (h.is_ours(name) or h.is_brokers(name))},
    )


def replay(names: Names, incoming: Incoming, letter: DeadLetter, *, at: datetime) -> Message:
    """The job once more, from its first attempt; a checkpoint stays, so that the job resumes there."""
    headers = {name: value for name, value in kept_headers(incoming).items() if name not in _SPENT}
    headers |= {h.REPLAYS: letter.replays + 1, h.REPLAYED_AT: h.milliseconds(at)}
    message = resend(incoming, names.jobs, letter.type, headers, job_id=letter.id or None, kind=letter.type)
    return message if letter.priority is None else replace(message, priority=letter.priority)


def drop(names: Names, incoming: Incoming, letter: DeadLetter, *, at: datetime, because: str) -> Message:
    """The dead letter for the queue of dropped ones."""
    headers = kept_headers(incoming) | {
        h.DROPPED_AT: h.milliseconds(at),
        h.DROPPED_BECAUSE: because,
        h.QUEUE: letter.queue,
    }
    return resend(incoming, "", names.dropped, headers, job_id=letter.id or None, kind=letter.type)


def purge(names: Names, incoming: Incoming, queue: str, *, at: datetime, because: str) -> Message:
    """A job that waits in a work queue, for the queue of dropped dead letters; restored, it becomes a dead letter."""
    headers = kept_headers(incoming) | {
        h.REASON: PURGED,
        h.FAILED_AT: h.milliseconds(at),
        h.DROPPED_AT: h.milliseconds(at),
        h.DROPPED_BECAUSE: because,
        h.QUEUE: queue,
    }
    properties = incoming.properties
    if properties.priority is not None:
        headers[h.PRIORITY] = properties.priority
    message = resend(incoming, "", names.dropped, headers, job_id=properties.message_id, kind=job_type(incoming))
    return replace(message, priority=None)


def restore(names: Names, incoming: Incoming, letter: DeadLetter) -> Message:
    """A dropped dead letter, back to the dead-letter queue it came from."""
    headers = {name: value for name, value in kept_headers(incoming).items() if name not in (h.DROPPED_AT, h.DROPPED_BECAUSE)}
    return resend(incoming, names.dead, letter.queue, headers, job_id=letter.id or None, kind=letter.type)


def _first_death(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What the broker says about its own dead-lettering, from the oldest entry of `x-death`."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list) or not deaths or not isinstance(deaths[-1], dict):
        return {}
    oldest = deaths[-1]
    keys, at = oldest.get("routing-keys") or [None], oldest.get("time")
    death = {
        "reason": oldest.get("reason", "unknown"),
        "at": at.replace(tzinfo=UTC) if isinstance(at, datetime) else None,
    }
    return death | ({"key": keys[0]} if keys[0] else {})


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name)
    return "" if value is None else text_of(value)


def _count(headers: Mapping[str, Any], name: str) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) else 0


def _priority(headers: Mapping[str, Any]) -> int | None:
    value = headers.get(h.PRIORITY)
    return value if isinstance(value, int) and value in range(2**8) else None


def _at(headers: Mapping[str, Any], name: str) -> datetime | None:
    try:
        return h.instant(headers, name)
    except Exception:  # noqa: BLE001 - a review shows what it can of any message
        return None
