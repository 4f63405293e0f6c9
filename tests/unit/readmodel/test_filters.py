"""What people type to find jobs."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.errors import InvalidFilter
from rmqjobs.lifecycle import State
from rmqjobs.readmodel.filters import JobFilter, parse

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)


def test_each_part_is_read() -> None:
    typed = "type:video.transcode type:video.clean state:failed queue:video worker:host1 error:demo.TimeoutError since:2h"
    typed += ' "disk full"'
    assert parse(typed, NOON) == JobFilter(
        types=("video.transcode", "video.clean"),
        states=(State.DEAD,),
        queues=("video",),
        workers=("host1",),
        errors=("TimeoutError",),
        since=NOON - timedelta(hours=2),
        text=("disk full",),
    )
    assert parse("", NOON) == JobFilter()
    assert parse('before:2027-01-01T10:00:00Z text:"a b"', NOON) == JobFilter(before=NOON - timedelta(hours=2), text=("a b",))


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("stat:dead", "Did you mean state:?"),
        ("colour:red", "There are type:, state:"),
        ("state:sleeping", "state:sleeping is not a state. States are queued, delayed"),
        ("since:yesterday", "since:yesterday is not a time"),
        ("since:99999999999999999h", "is not a time"),
        ('type:""', "type: has no value"),
        ("x" * 1001, "the limit is 1,000"),
        ("a " * 31, "more than 30 parts"),
    ],
)
def test_a_wrong_part_is_named(typed: str, named: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(typed, NOON)
    assert named in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(typed: str) -> None:
    try:
        parse(typed, NOON)
    except InvalidFilter:
        pass
