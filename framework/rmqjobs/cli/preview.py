"""What `rmqjobs schedules preview` says of one schedule: how often it ticks, and what clock changes do to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from rmqjobs.scheduler.catalogue import Planned

_NEAR = timedelta(hours=25)


def summary(planned: Planned, begin: datetime, end: datetime) -> dict[str, Any]:
    """Number of ticks, the first and the last."""
    schedule, zone = planned.schedule, ZoneInfo(planned.schedule.tz)
    ticks, last = planned.timetable.newest(begin, end, 1)
    first = planned.timetable.after(begin) if ticks else None
    return {
        "schedule": schedule.name,
        "type": schedule.type,
        "ticks": ticks,
        "first": first and first.astimezone(zone).isoformat(),
        "last": last[0].astimezone(zone).isoformat() if last else None,
        "words": schedule.in_words(),
        "tz": schedule.tz,
        "paused": schedule.paused,
    }


def remarks(planned: Planned, begin: datetime, end: datetime) -> Iterator[dict[str, str]]:
    """The ticks that a change of clocks moves, merges or doubles."""
    zone = ZoneInfo(planned.schedule.tz)
    for change in _changes(planned.schedule.tz, begin, end):
        for at in planned.timetable.between(max(change - _NEAR, begin), min(change + _NEAR, end)):
            remark = planned.timetable.remark(at)
            if remark:
                local = at.astimezone(zone).isoformat()
                yield {"at": local, "schedule": planned.schedule.name, "clock_change": remark}


@lru_cache(1024)
def _changes(tz: str, begin: datetime, end: datetime) -> tuple[datetime, ...]:
    """Days, to the hour, around which a zone's clocks change."""
    zone, found, moment = ZoneInfo(tz), [], begin.astimezone(UTC)
    while moment < end:
        later = moment + timedelta(hours=1)
        if moment.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            found.append(later)
        moment = later
    return tuple(found)
