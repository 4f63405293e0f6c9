"""The agenda: one moment for each name, the nearest at hand."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.scheduler.agenda import Agenda

START = datetime(2026, 11, 24, tzinfo=UTC)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20) | st.none() | st.just(-1))))
def test_it_agrees_with_a_plain_dictionary(steps: list[tuple[str, int | None]]) -> None:
    """-1 takes what is due; None forgets."""
    agenda, expected, now = Agenda(), dict[str, datetime](), START
    for name, number in steps:
        if number == -1:
            now += timedelta(seconds=7)
            due = sorted((at, each) for each, at in expected.items() if at <= now)
            assert agenda.take(now) == [each for _, each in due]
            expected = {each: at for each, at in expected.items() if at > now}
        elif number is None:
            agenda.note(name, None)
            expected.pop(name, None)
        else:
            expected[name] = START + timedelta(seconds=number)
            agenda.note(name, expected[name])
        assert agenda.nearest == min(expected.values(), default=None)
    agenda.clear()
    assert agenda.nearest is None
