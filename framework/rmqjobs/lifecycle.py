"""What became of a job: its state, from its records in the journal. Above `events`: pure.

Records arrive in any order, some of them twice, some of them never: a job that another program published has no `published`
record, and a short run has no `started`. The latest record gives the state, with what time has made of it since. Clocks of
several machines differ by some seconds. So `published` counts that much earlier: only a job published again is queued again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

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

    @property
    def is_end(self) -> bool:
        """Whether nothing more happens unless an operator acts."""
        return self in _ENDS


SKEW = timedelta(seconds=5)
_ENDS = frozenset({State.DONE, State.DEAD, State.DROPPED, State.SKIPPED})
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
    EventKind.REPLAYED: State.QUEUED,
    EventKind.DROPPED: State.DROPPED,
    EventKind.RESTORED: State.DEAD,
}
# Of records with the same time, the later one in this list counts.
_ORDER = {kind: place for place, kind in enumerate(_STATES)}


def in_order(records: Iterable[Event]) -> list[Event]:
    """One job's records as they happened, each once; kinds that say nothing about jobs are left out."""
    different = {_place(each): each for each in records if each.kind in _STATES}
    return sorted(different.values(), key=_place)


def _place(record: Event) -> tuple[datetime, int, int, str, str]:
    at = record.at - SKEW if record.kind is EventKind.PUBLISHED else record.at
    return at, _ORDER[record.kind], record.attempt, str(record.data), record.source


def state_of(records: Iterable[Event], now: datetime) -> State | None:
    """The state of one job; None when no record is about it.

    Args:
        records: All that is known of it, in any order.
        now: When the answer is asked for, aware: what waited until then is queued.
    """
    ordered = in_order(records)
    if not ordered:
        return None
    latest = ordered[-1]
    due = due_at(latest)
    if due is None:
        return _STATES[latest.kind]
    if due <= now:
        return State.QUEUED
    return State.RETRYING if latest.kind is EventKind.RETRIED else State.DELAYED


def due_at(record: Event) -> datetime | None:
    """Until when a job waits after this record, where it has to."""
    if record.kind is EventKind.PUBLISHED and isinstance(due := record.data.get("run_at"), int):
        return datetime.fromtimestamp(due / 1000, UTC)  # milliseconds, as in the job's header
    seconds = record.data.get("in_seconds")
    if record.kind in (EventKind.RETRIED, EventKind.SNOOZED) and isinstance(seconds, int | float):
        return record.at + timedelta(seconds=seconds)
    return None
