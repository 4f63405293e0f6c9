"""Which ticks are due: pure, from a schedule, what the token knows of it, and the time of day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rmqjobs.schedule import Misfire, Overlap, Schedule
from rmqjobs.scheduler.catalogue import Planned
from rmqjobs.timetable import Timetable
from rmqjobs.wire.scheduling import Entry

_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Tick:
    """One firing.

    Args:
        planned: Its planned time.
        due: When it should be published: later than that by its jitter.
        period_start: Start of the period that it stands for, which ends at `planned`.
        expires_at: Its job is dropped if it has not started by then.
    """

    planned: datetime
    due: datetime
    period_start: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Missed:
    """Planned times that passed, by more than the grace, while nobody could tick.

    Args:
        count: How many.
        first, last: The oldest and the newest.
        dropped: How many of them get no tick of their own.
    """

    count: int
    first: datetime
    last: datetime
    dropped: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do for one schedule: publish these ticks in order; then everything up to the cursor is settled."""

    ticks: tuple[Tick, ...]
    cursor: datetime
    missed: Missed | None = None


def decide(planned: Planned, entry: Entry, now: datetime) -> Decision:
    """What is due now for a schedule that is not paused."""
    schedule, timetable = planned.schedule, planned.timetable
    horizon = now - schedule.misfire_grace - schedule.jitter - _MOMENT
    count, newest = timetable.newest(entry.cursor, horizon, schedule.misfire_limit)
    on_time = _due(timetable, max(entry.cursor, horizon), now)
    if not newest and not on_time:
        return Decision((), entry.cursor)
    made_up = {Misfire.SKIP: [], Misfire.ALL: newest, Misfire.ONCE: [] if on_time else newest[-1:]}[schedule.misfire]
    first = timetable.after(entry.cursor) or newest[0] if newest else None
    missed = Missed(count, first, newest[-1], count - len(made_up)) if first else None
    ticks: list[Tick] = []
    for time in (*made_up, *on_time):
        stands_for = first if first and not ticks and schedule.misfire is Misfire.ONCE else time
        period_start = ticks[-1].planned if ticks else _previous(timetable, entry, stands_for)
        expires_at = _expiry(planned, time, now, late=time in made_up)
        ticks.append(Tick(time, timetable.due(time), period_start, expires_at))
    return Decision(tuple(ticks), (on_time or newest)[-1], missed)


def next_due(planned: Planned, entry: Entry) -> datetime | None:
    """When the schedule has to be looked at again; None when it has no tick left."""
    time = planned.timetable.after(entry.cursor)
    return None if time is None else planned.timetable.due(time)


def first_entry(schedule: Schedule, now: datetime) -> Entry:
    """The entry of a schedule that is new: past times stay past, but a one-shot that was just missed still comes."""
    just_missed = schedule.at is not None and now - schedule.misfire_grace <= schedule.at <= now
    return Entry(cursor=schedule.at - _MOMENT if schedule.at and just_missed else now, timing=schedule.timing)


def _due(timetable: Timetable, after: datetime, now: datetime) -> list[datetime]:
    found = []
    for time in timetable.between(after, now):
        if timetable.due(time) > now:  # order is kept: a tick waits for the jitter of the one before
            break
        found.append(time)
    return found


def _previous(timetable: Timetable, entry: Entry, time: datetime) -> datetime | None:
    """The planned time before: usually that of the last tick, which saves the search."""
    if entry.ticked is not None and timetable.after(entry.ticked) == time:
        return entry.ticked
    return timetable.before(time)


def _expiry(planned: Planned, time: datetime, now: datetime, *, late: bool) -> datetime | None:
    """When a tick's job expires; if it makes up for missed ones, counted from now."""
    schedule, timetable = planned.schedule, planned.timetable
    candidates = []
    if schedule.expires is not None:
        candidates.append((now if late else timetable.due(time)) + schedule.expires)
    if planned.overlap is Overlap.SKIP:
        following = timetable.after(max(time, now))
        if following is not None:
            candidates.append(timetable.due(following))
    return min(candidates, default=None)
