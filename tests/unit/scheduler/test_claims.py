"""Which claims are old enough to go: pure."""

from datetime import UTC, datetime, timedelta

from rmqjobs.scheduler.claims import AT_LEAST, AT_MOST, KEPT_TICKS, _old
from rmqjobs.wire.scheduling import Entry, planned_text

NOW = datetime(2026, 1, 10, tzinfo=UTC)


def entry(every: timedelta, count: int) -> Entry:
    """So many ticks, the last one now."""
    return Entry(cursor=NOW, claims=[planned_text(NOW - every * n) for n in reversed(range(count))])


def test_frequent_ticks_keep_their_claims_for_a_time() -> None:
    found = entry(timedelta(seconds=1), 1_000)
    old = list(_old(found, NOW))
    assert len(found.claims) - len(old) == AT_LEAST / timedelta(seconds=1)
    assert old == found.claims[: len(old)]


def test_rare_ticks_keep_the_claims_of_the_last_few() -> None:
    assert len(list(_old(entry(timedelta(hours=1), 30), NOW))) == 30 - KEPT_TICKS


def test_none_is_kept_for_ever() -> None:
    found = entry(timedelta(days=2), 5)
    old = list(_old(found, NOW))
    assert [NOW - datetime.fromisoformat(planned) >= AT_MOST for planned in found.claims] == [
        planned in old for planned in found.claims
    ]


def test_a_clock_that_went_back_ends_nothing() -> None:
    assert list(_old(entry(timedelta(seconds=1), 50), NOW - timedelta(days=1))) == []
