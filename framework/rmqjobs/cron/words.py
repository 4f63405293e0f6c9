"""An expression in English, for people. The only place that knows cron-descriptor."""

from __future__ import annotations

from collections.abc import Iterable

from rmqjobs.cron.days import Days, OfMonth, OfWeek
from rmqjobs.cron.reading import read

_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_COUNTS = ("first", "second", "third", "fourth", "fifth")


def in_words(text: str, seed: str = "") -> str:
    """The expression in English, such as `At 03:00, only on Monday`."""
    from cron_descriptor import Options, get_description  # noqa: PLC0415 - for people only

    options = Options()
    options.use_24hour_time_format, options.verbose = True, False
    expression = read(text, seed)
    minute, hour, day, month, weekday = expression.text.split()
    if _is_special(expression.days):  # the library knows these words one by one, but not in a list or combined
        words = get_description(f"{minute} {hour} * {month} *", options)
        time, separator, months = words.partition(", only in")
        words = f"{time}, {_days(expression.days)}{separator}{months}"
    else:
        words = str(get_description(expression.text.upper(), options))
        # The library always joins the two with "or"; here, as in Debian's cron, a star makes it "and".
        if day.startswith("*") or weekday.startswith("*"):
            words = words.replace(", or on", ", and only on")
    return words if expression.comes else f"{words}: there is no such day, so never by itself"


def _is_special(days: Days) -> bool:
    month, week = days.of_month or OfMonth(), days.of_week or OfWeek()
    return bool(month.from_on or month.before_last or month.workdays or month.last_workdays or week.nth or week.last)


def _days(days: Days) -> str:
    """`on day 1 of the month, or on the first Friday`."""
    parts = []
    if days.of_month is not None:
        parts.append(f"on {_listed(_of_month(days.of_month))} of the month")
    if days.of_week is not None:
        parts.append(f"on {_listed(_of_week(days.of_week))}")
    return (", and only " if days.both else ", or ").join(parts)


def _of_month(days: OfMonth) -> Iterable[str]:
    numbers = sorted(days.numbers)
    if numbers:
        yield f"day {_listed(map(str, numbers))}"
    yield from (f"day {day} to the last day" for day in sorted(days.from_on))
    yield from (f"the weekday nearest day {day}" for day in sorted(days.workdays))
    yield from (f"the last day{_but(count)}" for count in sorted(days.before_last, reverse=True))
    for count in sorted(days.last_workdays, reverse=True):
        yield f"the weekday nearest the last day{_but(count)}" if count else "the last weekday"


def _of_week(days: OfWeek) -> Iterable[str]:
    yield from (_WEEKDAYS[day] for day in sorted(days.weekdays, key=_from_monday))
    for day, count in sorted(days.nth, key=lambda pair: (pair[1], _from_monday(pair[0]))):
        yield f"the {_COUNTS[count - 1]} {_WEEKDAYS[day]}"
    yield from (f"the last {_WEEKDAYS[day]}" for day in sorted(days.last, key=_from_monday))


def _but(count: int) -> str:
    return f" but {count}" if count else ""


def _from_monday(day: int) -> int:
    return (day - 1) % len(_WEEKDAYS)


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
