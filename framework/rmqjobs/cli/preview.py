"""What `rmqjobs schedules preview` says of one schedule: how often it ticks, and what clock changes do to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from rmqjobs.scheduler.catalogue import Planned
from rmqjobs.timetable import changes

_NEAR = timedelta(hours=3)  # clocks change by less


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


def remarks(planned: Planned, begin: datetime, end: datetime) -> Iterator[dict[str, Any]]:
    """What each change of clocks does to the schedule: to which tick first, and to how many."""
    zone = ZoneInfo(planned.schedule.tz)
    for change in changes(zone, begin.astimezone(UTC).replace(microsecond=0), end.astimezone(UTC)):
        touched: dict[str, list[datetime]] = {}
        for at in planned.timetable.between(max(change - _NEAR, begin), min(change + _NEAR, end)):
            touched.setdefault(planned.timetable.remark(at), []).append(at)
        for remark, times in touched.items():
            if remark:
                local, name = times[0].astimezone(zone).isoformat(), planned.schedule.name
                yield {"at": local, "schedule": name, "ticks": len(times), "clock_change": remark}
