"""The planned times of a schedule, as instants. Floor 3: pure; where wall-clock time meets time zones.

A wall-clock time that comes twice is planned once, the first time; one that does not exist is planned at the end of the gap.
Expressions whose minutes or hours begin with `*` follow real time through both, as Debian's cron does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from zoneinfo import ZoneInfo

from rmqjobs import cron
from rmqjobs.schedule import Schedule

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MOMENT = timedelta(milliseconds=1)
_DAY = timedelta(days=1)
# 29 February may be eight years away, when a century year has none; on a Sunday, forty.
_SEARCH_BACK = (
    timedelta(minutes=1), timedelta(hours=1), _DAY, 32 * _DAY, 367 * _DAY, 9 * 366 * _DAY, 41 * 366 * _DAY, 400 * 366 * _DAY,
)  # fmt: skip


class Timetable:
    """The times at which a schedule is planned to tick; reads no clock."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._zone = ZoneInfo(schedule.tz)
        self._expression = cron.read(schedule.cron, schedule.name) if schedule.cron else None
        self._anchor = (schedule.start or EPOCH).astimezone(UTC)
        self._start = schedule.start.astimezone(UTC) if schedule.start else None
        self._end = schedule.end.astimezone(UTC) if schedule.end else None

    def after(self, instant: datetime) -> datetime | None:
        """The first planned time after an aware instant, in UTC; None when none is left."""
        instant = instant.astimezone(UTC)
        if self._start is not None and instant < self._start:
            instant = self._start - _MOMENT
        try:
            found = self._after(instant)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None
        return None if found is None or (self._end is not None and found > self._end) else found

    @property
    def comes(self) -> bool:
        """Whether it ever ticks by itself: `0 0 31 2 *` is a way to say "only by hand"."""
        return self._expression is None or self._expression.comes

    def between(self, instant: datetime, until: datetime) -> Iterator[datetime]:
        """Planned times after `instant`, up to and including `until`."""
        planned = self.after(instant)
        while planned is not None and planned <= until:
            yield planned
            planned = self.after(planned)

    def newest(self, instant: datetime, until: datetime, limit: int) -> tuple[int, list[datetime]]:
        """How many planned times `between` has, and the last `limit` of them."""
        count = self.count(instant, until)
        if not count:
            return 0, []
        found: list[datetime] = []
        for back in _SEARCH_BACK:
            found = list(self.between(max(instant, until - back), until))
            if len(found) >= min(limit, count):
                break
        return count, found[-limit:]

    def count(self, instant: datetime, until: datetime) -> int:
        """How many planned times `between` has; years of minutes are not counted one by one."""
        first = self.after(instant)
        if first is None or first > until:
            return 0
        until = min(until, self._end) if self._end is not None else until
        if self.schedule.every is not None:
            return (until - first) // self.schedule.every + 1
        if self._expression is None:
            return 1
        total, moment = 0, max(instant, first - _SECOND)
        for change in (*changes(self._zone, moment, until), None):
            near = until if change is None else min(max(change - _DAY, moment), until)
            # Away from clock changes the offset is always the same.
            offset = self._offset(moment)
            total += self._expression.count(self._naive(moment) + offset, self._naive(near) + offset)
            if change is not None:
                moment = min(max(change + _DAY, near), until)
                total += sum(1 for _ in self.between(near, moment))
        return total

    def before(self, planned: datetime) -> datetime | None:
        """The last planned time before an instant; None when there is none."""
        every = self.schedule.every
        if every is not None:
            until = min(planned - _MOMENT, self._end) if self._end is not None else planned - _MOMENT
            previous = self._anchor + (until - self._anchor) // every * every
            return previous if self._start is None or previous >= self._start else None
        for back in _SEARCH_BACK[:-1]:
            latest = None
            for earlier in self.between(planned - back, planned - _MOMENT):
                latest = earlier
            if latest is not None:
                return latest
        return None

    def due(self, planned: datetime) -> datetime:
        """When a planned tick is published: later by its jitter, which every scheduler computes the same."""
        if not self.schedule.jitter:
            return planned
        digest = sha256(f"{self.schedule.name}@{planned.isoformat()}".encode()).digest()
        return planned + self.schedule.jitter * (int.from_bytes(digest[:4]) / 2**32)

    def remark(self, planned: datetime) -> str:
        """What a clock change does to a planned time, in words; empty when it does nothing."""
        if self._expression is None:
            return ""
        wall, follows = self._wall(planned), self._expression.follows_real_time
        first, second = (wall.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        if first != second:
            return (
                "clocks go back: this time comes twice, and so does the tick"
                if follows
                else ("clocks go back: this time comes twice, the tick once")
            )
        if not follows and self._expression.after(wall - _SECOND) != wall:
            return f"clocks go forward: its time does not exist, it comes at {wall:%H:%M}"
        return ""

    def _after(self, instant: datetime) -> datetime | None:
        schedule = self.schedule
        if schedule.at is not None:
            return schedule.at.astimezone(UTC) if instant < schedule.at else None
        if schedule.every is not None:
            return self._anchor + ((instant - self._anchor) // schedule.every + 1) * schedule.every
        if self._zone.key == "UTC":
            found = self._next(self._naive(instant))
            return None if found is None else found.replace(tzinfo=UTC)
        follows = self._expression is not None and self._expression.follows_real_time
        return self._after_in_real_time(instant) if follows else self._after_on_the_clock(instant)

    def _after_on_the_clock(self, instant: datetime) -> datetime | None:
        """Plans each wall-clock time once: if it comes twice, the first time; if it does not exist, the end of the gap."""
        wall = self._wall(instant)
        while (following := self._next(wall)) is not None:
            wall = following
            found = wall.replace(tzinfo=self._zone).astimezone(UTC)
            if self._wall(found) != wall:  # it does not exist
                found = _change(self._zone, found - timedelta(hours=24), found)
            if found > instant:
                return found
        return None

    def _after_in_real_time(self, instant: datetime) -> datetime | None:
        """Plans as if the offset never changed; where it does change, goes on from there with the new one."""
        start, wall = instant, self._wall(instant)
        while (following := self._next(wall)) is not None:
            wall = following
            found = (wall - self._offset(start)).replace(tzinfo=UTC)
            first = wall.replace(tzinfo=self._zone).astimezone(UTC)  # differs from `found` when this time comes twice
            if instant < first < found and self._wall(first) == wall:
                return first
            if self._offset(found) == self._offset(start):
                return found
            start = _change(self._zone, start, found)
            wall = self._wall(start) - _SECOND  # `_next` looks strictly after it, and the change's own second counts
        return None

    def _next(self, wall: datetime) -> datetime | None:
        assert self._expression is not None  # noqa: S101 - only cron schedules come here
        return self._expression.after(wall)

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self._zone).replace(tzinfo=None)

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self._zone).utcoffset() or timedelta(0)

    @staticmethod
    def _naive(instant: datetime) -> datetime:
        return instant.astimezone(UTC).replace(tzinfo=None)


@lru_cache(4096)
def changes(zone: ZoneInfo, begin: datetime, end: datetime) -> tuple[datetime, ...]:
    """The instants between two others at which the zone's offset changes."""
    found, moment = [], begin
    while moment < end:
        later = min(moment + _DAY, end)
        if moment.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            found.append(_change(zone, moment, later))
        moment = later
    return tuple(found)


@lru_cache(4096)
def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The second from which the zone has the same offset as at `after`; at `before` it has another."""
    target = after.astimezone(zone).utcoffset()
    low, high = before.replace(microsecond=0), after.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        low, high = (low, middle) if middle.astimezone(zone).utcoffset() == target else (middle, high)
    return high
