"""What became of a job, from its records: a table, and any order of the same records."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmqjobs.events import Event, EventKind
from rmqjobs.lifecycle import State, due_at, in_order, state_of
from rmqjobs.wire.headers import milliseconds

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def record(kind: str, second: float = 0, attempt: int = 1, **data: object) -> Event:
    return Event(EventKind(kind), NOON + timedelta(seconds=second), "7", "demo.note", "demo", attempt, data)  # type: ignore[arg-type]


TABLE = [
    ([], None),
    ([record("published")], State.QUEUED),
    ([record("published", run_at=milliseconds(LATER))], State.DELAYED),
    ([record("published", run_at=milliseconds(NOON))], State.QUEUED),
    ([record("published"), record("started", 1)], State.RUNNING),
    ([record("progress", 1, done=1)], State.RUNNING),
    ([record("log", 1)], State.RUNNING),
    ([record("started", 1), record("succeeded", 2)], State.DONE),
    ([record("retried", 2, in_seconds=600)], State.RETRYING),
    ([record("retried", 2, in_seconds=5)], State.QUEUED),
    ([record("snoozed", 2, in_seconds=600)], State.DELAYED),
    ([record("started", 1), record("returned", 2)], State.QUEUED),
    ([record("dead", 2)], State.DEAD),
    ([record("dead", 2), record("dropped", 3)], State.DROPPED),
    ([record("dead", 2), record("dropped", 3), record("restored", 4)], State.DEAD),
    ([record("dead", 2), record("replayed", 3)], State.QUEUED),
    ([record("dead", 2), record("replayed", 3), record("succeeded", 4)], State.DONE),
    ([record("skipped", 2)], State.SKIPPED),
    ([record("published"), record("cancelled", 2)], State.CANCELLED),
    ([record("started", 1), record("cancelled", 2), record("succeeded", 3)], State.DONE),  # it could not be stopped
    ([record("log", 2), record("succeeded", 2)], State.DONE),  # within the same microsecond
    ([record("ticked", 2)], None),
    ([record("succeeded", 2), record("published", 3)], State.DONE),  # the publisher's clock is ahead
    ([record("published"), record("succeeded", 2), record("published", 20)], State.QUEUED),  # published again
]


@pytest.mark.parametrize(
    ("records", "state"), TABLE, ids=lambda value: "-".join(each.kind for each in value) if isinstance(value, list) else None
)
def test_the_state_of_a_job(records: list[Event], state: State | None) -> None:
    assert state_of(records, NOON + timedelta(minutes=1)) is state


@settings(deadline=None)
@given(st.data())
def test_any_order_and_any_repeats_end_in_the_same_state(data: st.DataObject) -> None:
    kinds = st.sampled_from(["published", "started", "progress", "log", "succeeded", "retried", "returned", "dead", "replayed"])
    made = data.draw(
        st.lists(st.builds(record, kinds, st.integers(0, 3), st.integers(1, 3), in_seconds=st.sampled_from([1, 900])))
    )
    shuffled = data.draw(st.permutations(made + data.draw(st.lists(st.sampled_from(made)) if made else st.just([]))))
    assert state_of(shuffled, LATER) is state_of(made, LATER)
    assert in_order(shuffled) == in_order(made)


def test_when_a_job_is_due() -> None:
    assert due_at(record("retried", in_seconds=5)) == NOON + timedelta(seconds=5)
    assert due_at(record("published", run_at=milliseconds(LATER))) == LATER
    assert due_at(record("published")) is None
    assert due_at(record("succeeded", in_seconds=5)) is None


def test_which_states_are_ends() -> None:
    assert {state for state in State if state.is_end} == {State.DONE, State.DEAD, State.DROPPED, State.SKIPPED, State.CANCELLED}
