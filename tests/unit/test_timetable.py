"""Planned times: against an independent implementation, and by hand around clock changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
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


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" not in (text[0], text.split()[1][0])), st.sampled_from(ZONES), MOMENTS)
def test_times_of_day_agree_with_cronsim(expression: str, zone: str, moment: datetime) -> None:
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" not in (text[0], text.split()[1][0])), *CHANGES)
def test_times_of_day_agree_with_cronsim_where_clocks_change(expression: str, zone: str, year: int, shift: float) -> None:
    expression, moment = " ".join((*expression.split()[:2], "* * *")), near_a_change(zone, year, shift)
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.sampled_from(["UTC", "Asia/Tokyo", "Asia/Kathmandu", "America/Sao_Paulo"]), MOMENTS)
def test_steps_agree_with_cronsim_where_clocks_never_change(expression: str, zone: str, moment: datetime) -> None:
    assert planned(timetable(cron=expression, tz=zone), moment, 40) == by_cronsim(expression, zone, moment)


# cronsim itself goes wrong for these (before the moment in folds, past the hour on Lord Howe), so every minute is tried.
@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS.filter(lambda text: "*" in (text[0], text.split()[1][0])), *CHANGES)
def test_steps_follow_real_time_where_clocks_change(expression: str, zone: str, year: int, shift: float) -> None:
    moment = near_a_change(zone, year, shift)
    ours = timetable(cron=expression, tz=zone).between(moment, moment + timedelta(days=2))
    assert list(ours) == minute_by_minute(expression, zone, moment, days=2)


def test_intervals_are_counted_from_their_start_whoever_asks() -> None:
    table = timetable(every="15m")
    assert table.after(datetime(2026, 11, 24, 3, 7, 11, tzinfo=UTC)) == datetime(2026, 11, 24, 3, 15, tzinfo=UTC)
    shifted = timetable(every="1h", start="2026-11-24T03:20:00", end="2026-11-24T05:30:00")
    found = list(shifted.between(datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)))
    assert [f"{at:%H:%M}" for at in found] == ["03:20", "04:20", "05:20"]


def test_before_is_a_planned_time_whatever_it_is_asked() -> None:
    table = timetable(every="1h", start="2026-11-24T03:20:00", end="2026-11-24T05:30:00")
    day = datetime(2026, 11, 24, tzinfo=UTC)
    assert table.before(day + timedelta(hours=4, minutes=30)) == day + timedelta(hours=4, minutes=20)
    assert table.before(day + timedelta(hours=4, minutes=20)) == day + timedelta(hours=3, minutes=20)
    assert table.before(day + timedelta(days=9)) == day + timedelta(hours=5, minutes=20)
    assert table.before(day) is None


def test_a_one_shot_comes_once() -> None:
    table = timetable(at="2027-01-01T09:00:00", tz="Asia/Tokyo")
    at = datetime(2027, 1, 1, 0, 0, tzinfo=UTC)
    assert table.after(at - timedelta(seconds=1)) == at
    assert table.after(at) is None
    assert table.before(at) is None


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, st.sampled_from(ZONES), MOMENTS)
@example("0 0 2 6 */7", "UTC", datetime(2024, 6, 2, tzinfo=UTC))  # eleven years apart
def test_before_undoes_after(expression: str, zone: str, moment: datetime) -> None:
    first, second = planned(timetable(cron=expression, tz=zone), moment, 2)
    assert timetable(cron=expression, tz=zone).before(second) == first


def test_newest_counts_days_of_seconds_without_walking_through_them() -> None:
    table, now = timetable(every="1s"), datetime(2026, 11, 24, tzinfo=UTC)
    count, newest = table.newest(now - timedelta(days=3650), now, 3)
    assert count == 3650 * 86400
    assert newest == [now - timedelta(seconds=2), now - timedelta(seconds=1), now]
    assert table.newest(now, now + timedelta(milliseconds=10), 3) == (0, [])


@given(st.integers(1, 50), st.integers(0, 500), st.integers(0, 40), st.booleans())
def test_newest_agrees_with_a_walk(every: int, seconds: int, limit: int, ends: bool) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    table = timetable(every=f"{every}s", start="2026-11-24T00:00:07", **({"end": "2026-11-24T00:02:00"} if ends else {}))
    all_of = list(table.between(now, now + timedelta(seconds=seconds)))
    count, newest = table.newest(now, now + timedelta(seconds=seconds), limit + 1)
    assert (count, newest) == (len(all_of), all_of[-limit - 1 :])


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, *CHANGES, st.integers(0, 60 * 86400), st.integers(1, 5))
def test_counting_agrees_with_a_walk(expression: str, zone: str, year: int, shift: float, seconds: int, limit: int) -> None:
    moment, table = near_a_change(zone, year, shift), timetable(cron=expression, tz=zone)
    if "*" in expression.split(maxsplit=1)[0]:
        seconds //= 20
    all_of = list(table.between(moment - timedelta(days=3), moment + timedelta(seconds=seconds)))
    count, newest = table.newest(moment - timedelta(days=3), moment + timedelta(seconds=seconds), limit)
    assert (count, newest) == (len(all_of), all_of[-limit:])


def test_jitter_is_the_same_for_everybody_and_within_its_limit() -> None:
    table, at = timetable(every="1h", jitter="10m"), datetime(2026, 11, 24, tzinfo=UTC)
    delays = [table.due(at + timedelta(hours=n)) - (at + timedelta(hours=n)) for n in range(100)]
    assert all(timedelta(0) <= delay < timedelta(minutes=10) for delay in delays)
    assert len(set(delays)) == 100
    assert timetable(every="1h", jitter="10m").due(at) == table.due(at)


@pytest.mark.parametrize(
    ("expression", "at", "remark"),
    [
        ("30 2 * * *", "2027-03-28T01:00:00", "clocks go forward: its time does not exist, it comes at 03:00"),
        ("30 2 * * *", "2027-10-31T00:30:00", "clocks go back: this time comes twice, the tick once"),
        ("*/30 * * * *", "2027-10-31T01:30:00", "clocks go back: this time comes twice, and so does the tick"),
        ("0 3 * * *", "2027-03-28T01:00:00", ""),
        ("30 2 * * *", "2027-03-29T00:30:00", ""),
    ],
)
def test_remarks_on_clock_changes(expression: str, at: str, remark: str) -> None:
    table = timetable(cron=expression, tz="Europe/Berlin")
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert table.after(moment - timedelta(seconds=1)) == moment
    assert table.remark(moment) == remark


def test_several_times_of_one_gap_are_one_tick() -> None:
    table = timetable(cron="0,15,30 2 * * *", tz="Europe/Berlin")
    day = datetime(2027, 3, 28, tzinfo=UTC)
    assert list(table.between(day, day + timedelta(hours=12))) == [datetime(2027, 3, 28, 1, tzinfo=UTC)]


def test_the_end_of_time_is_no_error() -> None:
    assert timetable(cron="0 0 1 1 *").after(datetime(9999, 6, 1, tzinfo=UTC)) is None
