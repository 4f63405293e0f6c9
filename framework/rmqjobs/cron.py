"""Cron expressions: five fields, read once, then followed in wall-clock time. Floor 1: the only place that knows croniter.

croniter reads the fields and finds the days; times of day are a product of two short lists. What a wall-clock time means in
a time zone is the business of `timetable`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache

MAX_LENGTH = 256
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_CHARACTERS = re.compile(r"[0-9a-z*,/#()?-]+", re.IGNORECASE)
_RANDOM = re.compile(r"(^|,)r([(/,]|$)", re.IGNORECASE)
_HASHED = re.compile(r"(^|,)h([(/,]|$)", re.IGNORECASE)
_SINGLE = re.compile(r"(?<![\w-])(\w+)-\1(/\d+)?(?=,|$)", re.IGNORECASE)  # 5-5, which croniter takes for every value
_HINT = "Write five fields, minute hour day month weekday, such as '0 3 * * *'"


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression, taken apart.

    Args:
        text: Five plain fields: aliases and `H` are resolved.
        times: Times of day, ascending.
        days: The expression of its days alone, at midnight.
        follows_real_time: Minutes or hours begin with `*`, so it means "every so often" and not "at this time of day".
    """

    text: str
    times: tuple[time, ...]
    days: str
    follows_real_time: bool

    def after(self, moment: datetime) -> datetime:
        """The first match after a naive wall-clock time."""
        day = _day_from(self.days, moment.date())
        if day == moment.date():
            place = bisect_right(self.times, moment.time())
            if place < len(self.times):
                return datetime.combine(day, self.times[place])
            day = _day_from(self.days, day + timedelta(days=1))
        return datetime.combine(day, self.times[0])

    def count(self, moment: datetime, until: datetime) -> int:
        """How many matches come after a naive wall-clock time, up to and including another."""
        total, day = 0, _day_from(self.days, moment.date())
        while day <= until.date():
            first = bisect_right(self.times, moment.time()) if day == moment.date() else 0
            last = bisect_right(self.times, until.time()) if day == until.date() else len(self.times)
            total += max(last - first, 0)
            day = _day_from(self.days, day + timedelta(days=1))
        return total


@lru_cache(10_000)
def read(text: str, seed: str = "") -> Expression:
    """The expression of a text.

    Args:
        text: Five fields, names and steps as in cron(5), or `@daily` and friends; `H` is a fixed value chosen by the seed.
        seed: Spreads `H`: the schedule's name.

    Raises:
        ValueError: It is none, or no date ever matches; says which field and why.
    """
    fields = _fields(text)
    from croniter import CroniterError, croniter  # noqa: PLC0415 - a worker has no use for it

    try:
        values, _ = croniter.expand(" ".join(fields), hash_id=seed.encode() or b"-", strict=False)
    except (CroniterError, ValueError, KeyError) as error:
        raise ValueError(f"{text!r} is no cron expression: {error}. {_HINT}") from None
    plain = [
        ",".join(map(str, value)) if _HASHED.search(field) else field.lower()
        for field, value in zip(fields, values, strict=True)
    ]
    minutes, hours = ([int(each) for each in _all(value, most)] for value, most in zip(values, (60, 24), strict=False))
    days = " ".join(("0 0", *plain[2:]))
    try:
        _day_from(days, date(2024, 1, 1))
    except ValueError:
        raise ValueError(f"{text!r} never comes: no such day of the month exists in that month") from None
    return Expression(
        text=" ".join(plain),
        times=tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
        days=days,
        follows_real_time=fields[0].startswith("*") or fields[1].startswith("*"),
    )


def in_words(text: str, seed: str = "") -> str:
    """The expression in English, such as `At 03:00, only on Monday`."""
    from cron_descriptor import Options, get_description  # noqa: PLC0415 - for people only

    options = Options()
    options.use_24hour_time_format, options.verbose = True, False
    plain = read(text, seed).text.upper()
    words = str(get_description(plain, options))
    _, _, day, _, weekday = plain.split()
    # The library always joins the two with "or"; here, as in Debian's cron, a star makes it "and".
    return words.replace(", or on", ", and only on") if day.startswith("*") or weekday.startswith("*") else words


def _fields(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a cron expression of {len(text):,} characters, {text[:20]!r} …: {MAX_LENGTH} are possible")
    fields = ALIASES.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        known = f" Known names are {', '.join(ALIASES)}." if text.startswith("@") else ""
        raise ValueError(f"{text!r} has {len(fields)} fields, not {len(_FIELDS)}.{known} {_HINT}")
    for name, field in zip(_FIELDS, fields, strict=True):
        if not _CHARACTERS.fullmatch(field):
            raise ValueError(f"{text!r}: the {name} {field!r} cannot be read. {_HINT}")
        if _RANDOM.search(field):
            raise ValueError(f"{text!r}: R in the {name} would be another time in each scheduler. Use H: spread, but fixed")
    if "w" in fields[2].lower():
        raise ValueError(f"{text!r}: W, the nearest weekday, is not known. Use a weekday, such as MON-FRI or 1#1")
    return [_SINGLE.sub(r"\1", field) for field in fields]


def _all(values: list[int | str], most: int) -> list[int]:
    """Every value of a field; croniter writes `*` for all."""
    return list(range(most)) if "*" in values else [int(value) for value in values]


@lru_cache(100_000)
def _day_from(days: str, first: date) -> date:
    """The first matching day from `first` on; the expressions of many schedules have the same days."""
    from croniter import CroniterError, croniter  # noqa: PLC0415 - as above

    start = datetime.combine(first, time()) - timedelta(seconds=1)
    try:
        # As in Debian's cron: day of month and day of week must both match when one of them begins with a star.
        found: datetime = croniter(days, start, implement_cron_bug=True).get_next(datetime)
    except CroniterError as error:
        raise ValueError(str(error)) from None
    return found.date()
