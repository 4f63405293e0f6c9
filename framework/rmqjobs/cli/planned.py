"""`rmqjobs schedules next | preview | explain`: what is planned, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cyclopts import Parameter, validators

from rmqjobs.cli.errors import NOT_FOUND, fail, say
from rmqjobs.cli.options import Common, Flag, Words
from rmqjobs.cli.output import print_json, print_table
from rmqjobs.errors import ConfigurationError, ScheduleError
from rmqjobs.plugins import load
from rmqjobs.schedule import YEARS, schedule_of
from rmqjobs.scheduler.catalogue import Catalogue, Planned, read_file
from rmqjobs.timetable import Timetable, changes

Count = Annotated[int, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1, lte=10_000))]
_NEAR = timedelta(hours=3)  # clocks change by less


def next_(
    name: str | None = None,
    /,
    *,
    count: Annotated[int | None, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1, lte=10_000))] = None,
    tz: str | None = None,
    plugin: Words = None,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """Show when schedules of plugins and rmqjobs.toml tick next; needs no broker.

    Parameters
    ----------
    name
        Only this one; all of them when none is named.
    count
        How many ticks of each; by default ten of the one that is named, or one of each.
    tz
        Show times in this zone, instead of each schedule's own.
    plugin
        A plugin to include; all installed ones when none is named.
    json
        Print JSON.
    """
    planned = _of(_catalogue(common, plugin), name)
    now, ticks = datetime.now(UTC), []
    for each in planned:
        at: datetime | None = now
        for _ in range(count or (10 if name else 1)):
            at = each.timetable.after(at) if at is not None else None
            if at is None:
                break
            ticks.append((at, each))
    ticks.sort(key=lambda tick: tick[0])
    rows = [
        {
            "at": at.astimezone(_zone(tz or each.schedule.tz)).isoformat(),
            "in": str(at - now).split(".")[0],
            "schedule": each.schedule.name,
            "type": each.schedule.type,
            "state": "paused" if each.schedule.paused else "on",
            "remark": each.timetable.remark(at),
        }
        for at, each in ticks
    ]
    if json:
        print_json(rows)
        return
    print_table(("at", "in", "schedule", "type", "state", "remark"), rows)
    if never := [each.schedule.name for each in planned if not each.timetable.comes]:
        names = ", ".join(never)
        say(f"these never tick by themselves, as there is no such day: {names}. Run one with: rmqjobs schedules run NAME")
    say("this is the plan of plugins and file; for pauses and additions at runtime, see: rmqjobs schedules list")


def preview(
    name: str | None = None,
    /,
    *,
    year: Flag = False,
    days: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=3660))] = 7,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    plugin: Words = None,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """Show how often schedules tick in a period, and what clock changes do to them; needs no broker.

    Parameters
    ----------
    name
        Only this one; all of them when none is named.
    year
        Look at a year.
    days
        Look at this many days.
    start
        Begin at this ISO 8601 time; by default now.
    plugin
        A plugin to include; all installed ones when none is named.
    json
        Print JSON.
    """
    planned = _of(_catalogue(common, plugin), name)
    begin = _instant("--from", start) if start else datetime.now(UTC)
    end = begin + timedelta(days=366 if year else days)
    rows = [_summary(each, begin, end) for each in planned]
    changes = [remark for each in planned for remark in _remarks(each, begin, end)]
    if json:
        print_json({"from": begin.isoformat(), "until": end.isoformat(), "schedules": rows, "clock_changes": changes})
        return
    print_table(("schedule", "ticks", "first", "last", "words", "tz"), rows)
    total = sum(row["ticks"] for row in rows)
    say(f"{len(rows):,} schedules, {total:,} ticks from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    if changes:
        print_table(("at", "schedule", "ticks", "clock_change"), changes)


def explain(expression: str, /, *, tz: str | None = None, count: Count = 5, json: Flag = False) -> None:
    """Say a cron expression in words, and when it comes next; needs no broker.

    Parameters
    ----------
    expression
        Five fields in quotes, @daily and friends, or @every and an interval. H is shown as for a schedule named "example".
    tz
        Its time zone; UTC if it is given neither here nor in the expression.
    count
        How many ticks to show.
    json
        Print JSON.
    """
    schedule = schedule_of({"name": "example", "type": "example", "cron": expression, **({"tz": tz} if tz else {})})
    table, at, ticks, zone = Timetable(schedule), datetime.now(UTC), [], ZoneInfo(schedule.tz)
    for _ in range(count):
        following = table.after(at)
        if following is None:
            break
        at = following
        ticks.append({"at": at.astimezone(zone).isoformat(), "remark": table.remark(at)})
    if json:
        print_json({"expression": expression, "words": schedule.in_words(), "tz": schedule.tz, "next": ticks})
        return
    say(f"{schedule.in_words()} ({schedule.tz})")
    if ticks:
        print_table(("at", "remark"), ticks)


def _summary(planned: Planned, begin: datetime, end: datetime) -> dict[str, Any]:
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


def _remarks(planned: Planned, begin: datetime, end: datetime) -> Iterator[dict[str, Any]]:
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


def _catalogue(common: Common | None, plugin: list[str] | None) -> Catalogue:
    common = common or Common()
    settings = common.settings(plugins=plugin or None)
    return Catalogue(load(settings.plugins, allowed=settings.allowed_plugins), read_file(common.file))


def _of(catalogue: Catalogue, name: str | None) -> list[Planned]:
    try:
        return [catalogue.find(name)] if name else list(catalogue)
    except ScheduleError as error:
        fail(f"{error.code} {error}", NOT_FOUND)
        raise


def _instant(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(option, f"{text!r} is not an ISO 8601 time", "Write it as 2027-01-31T03:00:00+01:00") from None
    if at.year not in YEARS:
        raise ConfigurationError(option, f"{text!r} is out of range", f"Years from {YEARS[0]} to {YEARS[-1]} are possible")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError("--tz", f"{name!r} is not an IANA time zone", "Write it as Europe/Berlin") from None
