"""Planned times: against an independent implementation, and by hand around clock changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from rmqjobs.schedule import schedule_of
from rmqjobs.timetable import Timetable

ZONES = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Lisbon",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Antarctica/Troll",
]


def timetable(**fields: object) -> Timetable:
    return Timetable(schedule_of({"name": "x", "type": "demo.note", **fields}))


def planned(table: Timetable, after: datetime, count: int) -> list[datetime]:
    def all_of() -> Iterator[datetime]:
        moment = table.after(after)
        while moment is not None:
            yield moment
            moment = table.after(moment)

    return list(islice(all_of(), count))


def field(least: int, most: int) -> st.SearchStrategy[str]:
    value = st.integers(least, most)
    ranges = st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}")
    some = st.lists(value.map(str) | ranges, min_size=1, max_size=3).map(",".join)
    return st.just("*") | value.map(str) | some | st.integers(2, 15).map(lambda step: f"*/{step}")


# Days to 28, so that no combination is impossible; most hours near the changes of clocks.
EXPRESSIONS = st.tuples(
    field(0, 59),
    st.sampled_from(["0", "1", "2", "3", "1-3", "0,2"]) | field(0, 23),
    st.just("*") | field(1, 28),
    st.just("*") | field(1, 12),
    st.just("*") | field(0, 6),
).map(" ".join)
# Every zone's changes lie in these months; half of all starts are near one.
SECONDS = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2024, 2033))
MOMENTS = st.integers(*SECONDS).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


CHANGES = (st.sampled_from(ZONES), st.integers(2024, 2032), st.floats(-90_000, 20_000))


def near_a_change(zone: str, year: int, shift: float) -> datetime:
    """A moment within a day of the year's first or last change of that zone's clocks."""
    moment = datetime(year, 1, 1, tzinfo=UTC)
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    while moment.year == year:
        moment += timedelta(hours=1)
        if moment.astimezone(ZoneInfo(zone)).utcoffset() != offset:
            return moment + timedelta(seconds=round(shift))
    return moment


def by_cronsim(expression: str, zone: str, moment: datetime) -> list[datetime]:
    # It forgets which of two equal times it starts at, so it starts the day before.
    start = (moment - timedelta(days=1)).astimezone(ZoneInfo(zone))
    ticks = (at.astimezone(UTC) for at in CronSim(expression, start))
    return list(islice((at for at in ticks if at > moment), 40))


def minute_by_minute(expression: str, zone: str, moment: datetime, days: int) -> list[datetime]:
    """Every minute of real time whose clock matches; cronsim only reads the fields and knows the days."""
    fields, at, found = CronSim(expression, moment), moment.replace(second=0), []
    while (at := at + timedelta(minutes=1)) <= moment + timedelta(days=days):
        clock = at.astimezone(ZoneInfo(zone))
        if (
            clock.minute in fields.minutes
            and clock.hour in fields.hours
            and clock.month in fields.months
            and fields.match_day(clock.date())
        ):
            found.append(at)
    return found


@settings(max_examples=1500, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" not in (text[0], text.split()[1][0])), st.sampled_from(ZONES), MOMENTS)
def test_times_of_day_agree_with_cronsim(expression: str, zone: str, moment: datetime) -> None:
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


@settings(max_examples=1500, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" not in (text[0], text.split()[1][0])), *CHANGES)
def test_times_of_day_agree_with_cronsim_where_clocks_change(expression: str, zone: str, year: int, shift: float) -> None:
    expression, moment = " ".join((*expression.split()[:2], "* * *")), near_a_change(zone, year, shift)
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


@settings(max_examples=500, deadline=None)
@given(EXPRESSIONS, st.sampled_from(["UTC", "Asia/Tokyo", "Asia/Kathmandu", "America/Sao_Paulo"]), MOMENTS)
def test_steps_agree_with_cronsim_where_clocks_never_change(expression: str, zone: str, moment: datetime) -> None:
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


# cronsim itself goes wrong for these (before the moment in folds, past the hour on Lord Howe), so every minute is tried.
@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" in (text[0], text.split()[1][0])), *CHANGES)
def test_steps_follow_real_time_where_clocks_change(expression: str, zone: str, year: int, shift: float) -> None:
    moment = near_a_change(zone, year, shift)
    ours = timetable(cron=expression, tz=zone).between(moment, moment + timedelta(days=2))
    assert list(ours) == minute_by_minute(expression, zone, moment, days=2)
