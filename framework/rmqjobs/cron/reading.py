"""Turns a text into an expression. Only this file knows croniter: it reads the plain fields, names, ranges, steps and `H`."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache

from rmqjobs.cron.days import Days, OfMonth, OfWeek

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
_LEAST = {"minute": 0, "hour": 0, "day of month": 1, "month": 1, "day of week": 0}
_MOST = {"minute": 59, "hour": 23, "day of month": 31, "month": 12, "day of week": 6}
_HINT = "Write five fields, minute hour day month weekday, such as '0 3 * * *'"
_CHARACTERS = re.compile(r"[0-9a-z*,/#()?~-]+")
_RANDOM = re.compile(r"(^|,)r([(/,]|$)")
_PREFIX = re.compile(r"\s*(?:CRON_)?TZ=(?P<zone>\S*)\s+(?P<rest>.*)", re.DOTALL)
_EVERY = re.compile(r"@every\s+(?P<interval>\S.*)", re.IGNORECASE)
_SPREAD = re.compile(r"(?P<least>\d*)~(?P<most>\d*)(?P<step>/\d+)?")
_SINGLE = re.compile(r"(\w+)-\1(/\d+)?")  # 5-5, which croniter takes for every value
_HASHED = re.compile(r"(^|,)h([(/,]|$)")
_FROM_IN_STEPS = re.compile(r"\d+/\d+")
_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY, _FEW = r"([1-9]|[12]\d|3[01])", r"([12]?\d|30)"
_WEEKDAY = rf"([0-7]|{'|'.join(_NAMES)})"
_SPECIAL_DAY = re.compile(
    rf"(?P<from_on>{_DAY})-l|(?P<last>l)(-(?P<before>{_FEW}))?|(?P<workday>{_DAY})w"
    rf"|(?P<last_workday>l(-(?P<before_workday>{_FEW}))?w|wl)"
)
_SPECIAL_WEEKDAY = re.compile(rf"(?P<nth>{_WEEKDAY})#(?P<count>[1-5])|l(?P<last>{_WEEKDAY})|(?P<other_last>{_WEEKDAY})l")
_SPECIAL_LETTERS = re.compile(r"#|l|w(?!ed)")
_SPECIAL_HINTS = {
    "day of month": "The special days are L, L-2, 29-L, 15W, LW and L-2W, each with one day from 1 to 31",
    "day of week": "The special days are 5#3 or FRI#3, the third Friday, up to 5, and 5L, L5 or FRIL, the last one",
}


@dataclass(frozen=True, slots=True)
class Prefixed:
    """A text, and what it says before its five fields or instead of them.

    Args:
        text: The text without that.
        tz: Time zone of `TZ=…` or `CRON_TZ=…`.
        every: Interval of `@every …`; the text is empty then.
    """

    text: str
    tz: str | None = None
    every: str | None = None


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression, taken apart.

    Args:
        text: Five plain fields: aliases and `H` are resolved.
        times: Times of day, ascending.
        days: Its days.
        follows_real_time: Minutes or hours begin with `*`, so it means "every so often" and not "at this time of day".
    """

    text: str
    times: tuple[time, ...]
    days: Days
    follows_real_time: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first match after a naive wall-clock time; None when there is none, ever."""
        day = self.days.first(moment.date())
        if day == moment.date():
            place = bisect_right(self.times, moment.time())
            if place < len(self.times):
                return datetime.combine(day, self.times[place])
            day = self.days.first(day + timedelta(days=1))
        return None if day is None else datetime.combine(day, self.times[0])

    def count(self, moment: datetime, until: datetime) -> int:
        """How many matches come after a naive wall-clock time, up to and including another."""
        total, day = 0, self.days.first(moment.date())
        while day is not None and day <= until.date():
            first = bisect_right(self.times, moment.time()) if day == moment.date() else 0
            last = bisect_right(self.times, until.time()) if day == until.date() else len(self.times)
            total += max(last - first, 0)
            day = self.days.first(day + timedelta(days=1))
        return total

    @property
    def comes(self) -> bool:
        """Whether there is such a day at all: 31 February is a way to say "only by hand"."""
        return self.days.first(date(2000, 1, 1)) is not None


def unprefixed(text: str) -> Prefixed:
    """Takes off what other systems write before the fields, a time zone, or instead of them, an interval."""
    tz = None
    if (zone := _PREFIX.fullmatch(text)) is not None:
        text, tz = zone["rest"], zone["zone"]
    if (interval := _EVERY.fullmatch(text.strip())) is not None:
        return Prefixed("", tz, interval["interval"])
    return Prefixed(text, tz)


@lru_cache(10_000)
def read(text: str, seed: str = "") -> Expression:
    """The expression of a text.

    Args:
        text: Five fields, names and steps as in cron(5), or `@daily` and friends; `H` is a fixed value chosen by the seed.
        seed: Spreads `H`: the schedule's name.

    Raises:
        ValueError: It is not a cron expression; the message says which field is wrong and why.
    """
    minute, hour, day, month, weekday = _fields(text)
    days_of_month, special_days = _sort(day, _SPECIAL_DAY)
    weekdays, special_weekdays = _sort(weekday, _SPECIAL_WEEKDAY)
    values = _expand(text, (minute, hour, days_of_month or "*", month, weekdays or "*"), seed)
    of_month = None if day == "*" else _of_month(values[2] if days_of_month else [], special_days)
    of_week = None if weekday == "*" else _of_week(values[4] if weekdays else [], special_weekdays)
    plain = [_plain(*pair) for pair in zip((minute, hour, days_of_month, month, weekdays), values, strict=True)]
    plain[2] = ",".join(filter(None, (plain[2], *special_days)))
    plain[4] = ",".join(filter(None, (plain[4], *special_weekdays)))
    return Expression(
        text=" ".join(plain),
        times=tuple(time(hour, minute) for hour in values[1] for minute in values[0]),
        days=Days(of_month, of_week, frozenset(values[3]), both=day.startswith("*") or weekday.startswith("*")),
        follows_real_time=minute.startswith("*") or hour.startswith("*"),
    )


def _fields(text: str) -> list[str]:
    """The five fields in lower case, with the spellings of other systems changed to croniter's."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a cron expression of {len(text):,} characters, {text[:20]!r} …: the limit is {MAX_LENGTH}")
    fields = ALIASES.get(text.strip().lower(), text).lower().split()
    if len(fields) != len(_FIELDS):
        count = f"{len(fields)} field" + ("s" if len(fields) != 1 else "")
        raise ValueError(f"{text!r} has {count}, not {len(_FIELDS)}.{_why_not_five(text, fields)} {_HINT}")
    for name, field in zip(_FIELDS, fields, strict=True):
        if not _CHARACTERS.fullmatch(field):
            raise ValueError(f"{text!r}: the {name} {field!r} cannot be read. {_HINT}")
        if _RANDOM.search(field):
            raise ValueError(f"{text!r}: R in the {name} would be another time in each scheduler. Use H: spread but fixed")
    return [
        ",".join(_in_croniters_words(token, name) for token in field.split(","))
        for name, field in zip(_FIELDS, fields, strict=True)
    ]


def _why_not_five(text: str, fields: Sequence[str]) -> str:
    if text.startswith("@"):
        known = f" Known names are {', '.join(ALIASES)}, and @every with an interval."
        return f" Nothing runs just because a scheduler starts.{known}" if text.lower().startswith("@reboot") else known
    if len(fields) in (len(_FIELDS) + 1, len(_FIELDS) + 2):
        # Quartz and Spring have seconds first, croniter has them last, AWS has years: the same text means different times.
        return (
            " Systems with more fields differ in their meaning: seconds first, seconds last, or a year. Leave these out;"
            ' for an interval of seconds write every = "10s".'
        )
    return ""


def _in_croniters_words(token: str, name: str) -> str:
    if token.startswith("?"):
        token = f"*{token[1:]}"
    if (spread := _SPREAD.fullmatch(token)) is not None:
        if not (spread["least"] or spread["most"]):
            return f"h{spread['step'] or ''}"
        bounds = f"{spread['least'] or _LEAST[name]}-{spread['most'] or _MOST[name]}"
        return f"h({bounds}){spread['step'] or ''}"
    if name == _FIELDS[-1] and token.startswith("7/"):  # Sunday as the end of the week, not as its beginning again
        return "7"
    single = _SINGLE.fullmatch(token)
    return single[1] if single else token


def _sort(field: str, pattern: re.Pattern[str]) -> tuple[str, list[str]]:
    """Splits a field into what croniter reads and the special words that we read."""
    tokens = field.split(",")
    special = [token for token in tokens if pattern.fullmatch(token)]
    return ",".join(token for token in tokens if token not in special), special


def _expand(text: str, fields: Sequence[str], seed: str) -> list[list[int]]:
    """Every value of each field, ascending."""
    from croniter import CroniterError, croniter  # noqa: PLC0415 - a worker does not need it

    for name, field in ((_FIELDS[2], fields[2]), (_FIELDS[4], fields[4])):
        for token in field.split(","):
            if _SPECIAL_LETTERS.search(token):
                raise ValueError(f"{text!r}: {token.upper()!r} in the {name} cannot be read. {_SPECIAL_HINTS[name]}")
    try:
        values, _ = croniter.expand(" ".join(fields), hash_id=seed.encode() or b"-", strict=False)
    except (CroniterError, ValueError, KeyError) as error:
        raise ValueError(f"{text!r} is not a cron expression: {error}. {_HINT}") from None
    return [
        list(range(_LEAST[name], _MOST[name] + 1)) if "*" in value else sorted(map(int, value))
        for name, value in zip(_FIELDS, values, strict=True)
    ]


def _plain(field: str, values: Sequence[int]) -> str:
    """The field, with its values in place of `H` and of steps such as `59/15`, which is 59 alone."""
    return ",".join(map(str, values)) if _HASHED.search(field) or _FROM_IN_STEPS.fullmatch(field) else field


def _of_month(numbers: Sequence[int], special: Sequence[str]) -> OfMonth:
    found = [match for token in special if (match := _SPECIAL_DAY.fullmatch(token))]
    return OfMonth(
        numbers=frozenset(numbers),
        from_on=frozenset(int(match["from_on"]) for match in found if match["from_on"]),
        before_last=frozenset(int(match["before"] or 0) for match in found if match["last"]),
        workdays=frozenset(int(match["workday"]) for match in found if match["workday"]),
        last_workdays=frozenset(int(match["before_workday"] or 0) for match in found if match["last_workday"]),
    )


def _of_week(numbers: Sequence[int], special: Sequence[str]) -> OfWeek:
    found = [match for token in special if (match := _SPECIAL_WEEKDAY.fullmatch(token))]
    last = [match["last"] or match["other_last"] for match in found if not match["nth"]]
    return OfWeek(
        weekdays=frozenset(numbers),
        nth=frozenset((_weekday(match["nth"]), int(match["count"])) for match in found if match["nth"]),
        last=frozenset(map(_weekday, last)),
    )


def _weekday(word: str) -> int:
    return _NAMES.index(word) if word in _NAMES else int(word) % len(_NAMES)
