"""What became of a job: its state, from its records in the journal. Above `events`: pure.

Records arrive in any order, some of them twice, some of them never: a job that another program published has no `published`
record, and a short run has no `started`. The latest record gives the state, with what time has made of it since. Clocks of
several machines differ by some seconds. So `published` counts that much earlier: only a job published again is queued again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b

from rmqjobs.events import Event, EventKind


class State(StrEnum):
    """Where a job is. The first four go on by themselves, the others are ends."""

    QUEUED = "queued"
    DELAYED = "delayed"  # it waits for its time
    RUNNING = "running"
    RETRYING = "retrying"  # it failed, and waits for its next attempt
    DONE = "done"
    DEAD = "dead"  # a dead letter, for an operator
    DROPPED = "dropped"  # by an operator; can be restored for 30 days
    SKIPPED = "skipped"  # it expired before it started, or was published twice
    CANCELLED = "cancelled"  # by an operator

    @property
    def is_end(self) -> bool:
        """Whether nothing more happens unless an operator acts."""
        return self in _ENDS


SKEW = timedelta(seconds=5)
_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)
_ENDS = frozenset({State.DONE, State.DEAD, State.DROPPED, State.SKIPPED, State.CANCELLED})
_STATES: Mapping[EventKind, State] = {
    EventKind.PUBLISHED: State.QUEUED,
    EventKind.STARTED: State.RUNNING,
    EventKind.PROGRESS: State.RUNNING,
    EventKind.LOG: State.RUNNING,
    EventKind.SUCCEEDED: State.DONE,
    EventKind.RETRIED: State.RETRYING,
    EventKind.SNOOZED: State.DELAYED,
    EventKind.RETURNED: State.QUEUED,
    EventKind.DEAD: State.DEAD,
    EventKind.SKIPPED: State.SKIPPED,
    EventKind.CANCELLED: State.CANCELLED,
    EventKind.REPLAYED: State.QUEUED,
    EventKind.DROPPED: State.DROPPED,
    EventKind.RESTORED: State.DEAD,
}
# Of records with the same time, the later one in this list counts.
_ORDER = {kind: place for place, kind in enumerate(_STATES)}


def is_about_a_job(kind: EventKind) -> bool:
    """Whether records of this kind say where a job is."""
    return kind in _STATES


def in_order(records: Iterable[Event]) -> list[Event]:
    """One job's records as they happened, each once; kinds that say nothing about jobs are left out."""
    different = {place(each): each for each in records if is_about_a_job(each.kind)}
    return [record for _, record in sorted(different.items())]


def place(record: Event) -> str:
    """What puts a job's records in order as text, and is the same for repeats."""
    at = record.at - SKEW if record.kind is EventKind.PUBLISHED else record.at
    content = blake2b(f"{record.data}{record.source}".encode(errors="backslashreplace"), digest_size=6).hexdigest()
    return f"{(at - _EPOCH) // _MICROSECOND:017}.{_ORDER.get(record.kind, 0):02}.{record.attempt:06}.{content}"


def state_of(records: Iterable[Event], now: datetime) -> State | None:
    """The state of one job; None when no record is about it.

    Args:
        records: All that is known of it, in any order.
        now: When the answer is asked for, aware: what waited until then is queued.
    """
    ordered = in_order(records)
    if not ordered:
        return None
    state, due = state_after(ordered[-1])
    return State.QUEUED if due is not None and due <= now else state


def state_after(record: Event) -> tuple[State, datetime | None]:
    """The state of a job after its latest record, and until when it has to wait, if it has to; from then on it is queued."""
    due = due_at(record)
    if due is None:
        return _STATES[record.kind], None
    return (State.RETRYING if record.kind is EventKind.RETRIED else State.DELAYED), due


def due_at(record: Event) -> datetime | None:
    """Until when a job waits after this record, where it has to; None where the record names an impossible time."""
    try:
        if record.kind is EventKind.PUBLISHED and isinstance(due := record.data.get("run_at"), int):
            return datetime.fromtimestamp(due / 1000, UTC)  # milliseconds, as in the job's header
        seconds = record.data.get("in_seconds")
        if record.kind in (EventKind.RETRIED, EventKind.SNOOZED) and isinstance(seconds, int | float):
            return record.at + timedelta(seconds=seconds)
    except (OverflowError, ValueError, OSError):
        pass
    return None
