"""Which days match: numbers, weekdays, and the special words for both. Pure; weekdays count from Sunday, which is 0.

The special words are those of Quartz and Kubernetes: `L` is the last day, `L-2` two days before it, `29-L` every day from the
29th on, `15W` the working day nearest the 15th, `LW` the last working day, `5#3` the third Friday, `5L` or `L5` the last one.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

_MONTHS = 12
_CYCLE = 400 * _MONTHS  # months after which the calendar repeats, weekdays included
_WEEK = 7
_SATURDAY = 6


@dataclass(frozen=True, slots=True)
class OfMonth:
    """Days by their place in the month.

    Args:
        numbers: 1 to 31.
        from_on: From each of these to the last day.
        before_last: This many days before the last one; 0 is the last.
        workdays: For each of these, the nearest day from Monday to Friday in the same month.
        last_workdays: The same, for this many days before the last one.
    """

    numbers: frozenset[int] = frozenset()
    from_on: frozenset[int] = frozenset()
    before_last: frozenset[int] = frozenset()
    workdays: frozenset[int] = frozenset()
    last_workdays: frozenset[int] = frozenset()

    def find(self, first: int, length: int) -> set[int]:
        """The matching days of a month that begins on weekday `first` and has `length` days."""
        found = set(self.numbers) | {length - before for before in self.before_last}
        for start in self.from_on:
            found |= set(range(start, length + 1))
        wanted = self.workdays | {length - before for before in self.last_workdays}
        found |= {_nearest_workday(day, first, length) for day in wanted if 1 <= day <= length}
        return {day for day in found if 1 <= day <= length}


@dataclass(frozen=True, slots=True)
class OfWeek:
    """Days by their weekday.

    Args:
        weekdays: Every one of them.
        nth: Pairs of a weekday and its count in the month, from 1.
        last: The last one in the month.
    """

    weekdays: frozenset[int] = frozenset()
    nth: frozenset[tuple[int, int]] = frozenset()
    last: frozenset[int] = frozenset()

    def find(self, first: int, length: int) -> set[int]:
        """The matching days of a month that begins on weekday `first` and has `length` days."""
        found = {day for day in range(1, length + 1) if (first + day - 1) % _WEEK in self.weekdays}
        found |= {1 + (weekday - first) % _WEEK + (count - 1) * _WEEK for weekday, count in self.nth}
        found |= {length - (first + length - 1 - weekday) % _WEEK for weekday in self.last}
        return {day for day in found if day <= length}


@dataclass(frozen=True, slots=True)
class Days:
    """The days of an expression.

    Args:
        of_month: None when every day will do.
        of_week: None when every day will do.
        months: 1 to 12.
        both: Whether a day must match both of them, not only one.
    """

    of_month: OfMonth | None
    of_week: OfWeek | None
    months: frozenset[int]
    both: bool

    def first(self, day: date) -> date | None:
        """The first matching day from this one on; None when there is none, ever, or none before the year 10,000."""
        year, month, least = day.year, day.month, day.day
        for _ in range(_CYCLE + 1):
            if month in self.months:
                for found in _in_month(self, year, month):
                    if found >= least:
                        return date(year, month, found)
            least, month = 1, month + 1
            if month > _MONTHS:
                year, month = year + 1, 1
                if year > date.max.year:
                    return None
        return None

    def find(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of a month, ascending."""
        monday_first, length = monthrange(year, month)
        first = (monday_first + 1) % _WEEK
        every = set(range(1, length + 1))
        by_month = every if self.of_month is None else self.of_month.find(first, length)
        by_week = every if self.of_week is None else self.of_week.find(first, length)
        return tuple(sorted(by_month & by_week if self.both else by_month | by_week))


@lru_cache(100_000)
def _in_month(days: Days, year: int, month: int) -> tuple[int, ...]:
    """Caches `find`: the expressions of many schedules have the same days."""
    return days.find(year, month)


def _nearest_workday(day: int, first: int, length: int) -> int:
    weekday = (first + day - 1) % _WEEK
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
