"""The error tree and the signals."""

from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import errors
from rmqjobs.errors import RmqJobsError, Signal, Snooze


def all_errors() -> list[type[RmqJobsError]]:
    found, left = [], [RmqJobsError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "rmqjobs.errors"]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(codes) == len(set(codes))


def test_the_tree_in_the_docstring_names_every_error_and_signal() -> None:
    tree = errors.__doc__ or ""
    assert [kind.__name__ for kind in [*all_errors(), *Signal.__subclasses__()] if kind.__name__ not in tree] == []


def test_a_snooze_takes_exactly_one_of_until_and_for() -> None:
    with pytest.raises(TypeError, match="exactly one"):
        Snooze()
    with pytest.raises(TypeError, match="exactly one"):
        Snooze(until=datetime.now(UTC), for_=timedelta(1))


def test_a_snooze_until_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Snooze(until=datetime(2026, 1, 1))  # noqa: DTZ001 - the point
