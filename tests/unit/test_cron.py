"""Which days an expression means, and how it is said. Other systems' words are taken for what they mean there."""

from calendar import monthrange
from datetime import date, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rmqjobs import cron


def days(expression: str, start: str = "2026-11-30", count: int = 5) -> str:
    """The next days, as `12-04 01-01`."""
    moment, found = datetime.fromisoformat(start), []
    read = cron.read(expression, "seed")
    for _ in range(count):
        following = read.after(moment)
        if following is None:
            break
        moment = following
        found.append(f"{moment:%m-%d}")
    return " ".join(found)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Neither begins with a star: one of them is enough.
        ("0 0 1 * 5#1", "12-01 12-04 01-01 02-01 02-05"),
        ("0 0 1,15 * MON#1", "12-01 12-07 12-15 01-01 01-04"),
        ("0 0 L * 5#1", "12-04 12-31 01-01 01-31 02-05"),
        ("0 0 1 * L5", "12-01 12-25 01-01 01-29 02-01"),
        # One does: both are needed.
        ("0 0 */2 * 5#1", "01-01 02-05 03-05 05-07 09-03"),
        ("0 0 8 * */2", "12-08 04-08 05-08 06-08 07-08"),
        ("0 0 ? * 5#3", "12-18 01-15 02-19 03-19 04-16"),
        ("0 0 * * 1,5#3", "12-07 12-14 12-18 12-21 12-28"),
        ("0 0 * * FRIL", "12-25 01-29 02-26 03-26 04-30"),
        ("0 0 * * 5L", "12-25 01-29 02-26 03-26 04-30"),
        ("0 0 * * 7#5", "01-31 05-30 08-29 10-31 01-30"),
        ("0 0 * * 7/2", "12-06 12-13 12-20 12-27 01-03"),
        ("0 0 * * 5-7", "12-04 12-05 12-06 12-11 12-12"),
        ("0 0 LW * *", "12-31 01-29 02-26 03-31 04-30"),
        ("0 0 15W 5,8 *", "05-14 08-16 05-15 08-15 05-15"),
        ("0 0 1W 5,8 *", "05-03 08-02 05-01 08-01 05-01"),  # never into another month
        ("0 0 31W * *", "12-31 01-29 03-31 05-31 07-30"),
        ("0 0 L-2 * *", "12-29 01-29 02-26 03-29 04-28"),
        ("0 0 L-2W 1 *", "01-29 01-28 01-29 01-29 01-29"),
        ("0 0 29-L 2 *", "02-29 02-29 02-29 02-29 02-29"),
        ("0 0 L,15 * *", "12-15 12-31 01-15 01-31 02-15"),
        ("0 0 29 2 MON#5", "02-29 02-29 02-29 02-29 02-29"),
        ("0 0 31 2 *", ""),
        ("0 0 30,31 2 ?", ""),
        ("0 0 L-30 2 *", ""),
        ("? ? ? 1 ?", "01-01 01-01 01-01 01-01 01-01"),
    ],
)
def test_the_days_of(expression: str, expected: str) -> None:
    assert days(expression) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("@daily", "At 00:00"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 9 * * MON", "At 09:00, only on Monday"),
        ("0 9 */2 * MON", "At 09:00, every 2 days, and only on Monday"),
        ("0 9 1 * MON", "At 09:00, on day 1 of the month, or on Monday"),
        ("0 0 L * *", "At 00:00, on the last day of the month"),
        (
            "0 0 1,15 3 5#1,5L",
            "At 00:00, on day 1 and 15 of the month, or on the first Friday and the last Friday, only in March",
        ),
        ("0 0 15W,LW * *", "At 00:00, on the weekday nearest day 15 and the last weekday of the month"),
        ("0 0 L-2,L-3W * *", "At 00:00, on the last day but 2 and the weekday nearest the last day but 3 of the month"),
        ("0 0 29-L * ?", "At 00:00, on day 29 to the last day of the month"),
        ("59/15 3 * * *", "At 03:59"),
        ("0 0 31 2 *", "At 00:00, on day 31 of the month, only in February: there is no such day, so never by itself"),
    ],
)
def test_expressions_in_words(expression: str, words: str) -> None:
    assert cron.in_words(expression) == words


def test_h_is_fixed_for_a_name_and_spreads_names() -> None:
    for text in ("H 3 * * *", "~ 3 * * *"):
        minutes = {cron.read(text, f"schedule-{number}").times[0].minute for number in range(200)}
        assert len(minutes) > 40
    assert cron.read("H H * * *", "a") == cron.read("H H * * *", "a")
    assert {cron.read("10~19 3 * * *", f"{number}").times[0].minute for number in range(200)} == set(range(10, 20))
    assert cron.read("~9 20~ * * *", "a").times[0].minute < 10


def test_a_single_value_range_is_that_value() -> None:
    """croniter takes 5-5 for every value."""
    moment = datetime.fromisoformat("2026-01-01")
    assert cron.read("5-5 3-3/2 * * *").after(moment) == moment.replace(hour=3, minute=5)


WEEKDAYS = st.integers(0, 6)
OF_MONTH = st.integers(1, 31).flatmap(lambda day: st.sampled_from([f"{day}", f"{day}W", f"{day}-L", f"L-{min(day, 30)}", "LW"]))
OF_WEEK = st.tuples(WEEKDAYS, st.integers(1, 5)).flatmap(
    lambda pair: st.sampled_from([f"{pair[0]}", f"{pair[0]}#{pair[1]}", f"L{pair[0]}", f"{pair[0]}L"])
)


def workday_near(day: int, year: int, month: int) -> int:
    """Tried one after the other: nearest first, earlier before later."""
    length = monthrange(year, month)[1]
    for distance in (0, -1, 1, -2, 2):
        if 1 <= day + distance <= length and date(year, month, day + distance).isoweekday() < 6:
            return day + distance
    raise AssertionError


def means(token: str, day: date) -> bool:
    """Whether a word means that day, by looking at the calendar alone."""
    length, token = monthrange(day.year, day.month)[1], token.upper()
    if token == "LW":
        return day.day == workday_near(length, day.year, day.month)
    if token.endswith("-L"):
        return day.day >= int(token[:-2])
    if token.startswith("L-"):
        return day.day == length - int(token[2:])
    if token.endswith("W"):
        wanted = int(token[:-1])
        return wanted <= length and day.day == workday_near(wanted, day.year, day.month)
    return day.day == int(token)


def means_weekday(token: str, day: date) -> bool:
    weekday = day.isoweekday() % 7
    if "#" in token:
        wanted, count = map(int, token.split("#"))
        return weekday == wanted and (day.day - 1) // 7 + 1 == count
    if "L" in token:
        later = day + timedelta(days=7)
        return weekday == int(token.strip("L")) and later.month != day.month
    return weekday == int(token)


@settings(max_examples=300, deadline=None)
@given(
    st.none() | st.lists(OF_MONTH, min_size=1, max_size=3),
    st.none() | st.lists(OF_WEEK, min_size=1, max_size=3),
    st.dates(date(1990, 1, 1), date(2090, 1, 1)),
)
@example(["31W"], None, date(2027, 2, 1))
def test_special_days_are_what_the_calendar_says(months: list[str] | None, weeks: list[str] | None, start: date) -> None:
    expression = cron.read(f"0 0 {','.join(months or ['*'])} * {','.join(weeks or ['*'])}")
    for offset in range(100):
        day = start + timedelta(days=offset)
        of_month = months is None or any(means(token, day) for token in months)
        of_week = weeks is None or any(means_weekday(token, day) for token in weeks)
        matches = of_month and of_week if months is None or weeks is None else of_month or of_week
        assert (expression.days.first(day) == day) == matches, day
