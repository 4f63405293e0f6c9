"""Which ticks are due, on a clock that is moved by hand: after downtime, jumps, and for each policy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.schedule import Overlap, schedule_of
from rmqjobs.scheduler.catalogue import Origin, Planned
from rmqjobs.scheduler.plan import Decision, decide, first_entry, next_due
from rmqjobs.timetable import Timetable
from rmqjobs.wire.scheduling import Entry

DAY = datetime(2026, 11, 24, tzinfo=UTC)


def at(text: str) -> datetime:
    hours, minutes, seconds = (*text.split(":"), "0")[:3]
    return DAY + timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))


def planned(overlap: Overlap = Overlap.ALLOW, **fields: Any) -> Planned:
    schedule = schedule_of({"name": "x", "type": "demo.note", **fields})
    return Planned(schedule, Timetable(schedule), Origin.FILE, overlap)


def times(decision: Decision) -> list[str]:
    return [f"{tick.planned:%H:%M}" for tick in decision.ticks]


HOURLY: dict[str, Any] = {"cron": "0 * * * *"}


def test_nothing_is_due_before_its_time() -> None:
    entry = Entry(cursor=at("3:00"))
    decision = decide(planned(**HOURLY), entry, at("3:59:59"))
    assert (decision.ticks, decision.cursor, decision.missed) == ((), entry.cursor, None)
    assert next_due(planned(**HOURLY), entry) == at("4:00")


def test_a_tick_stands_for_the_time_since_the_one_before() -> None:
    (tick,) = decide(planned(**HOURLY), Entry(cursor=at("3:00")), at("4:00")).ticks
    assert (tick.planned, tick.period_start, tick.expires_at) == (at("4:00"), at("3:00"), None)


def test_a_tick_within_the_grace_is_late_and_not_missed() -> None:
    decision = decide(planned(**HOURLY, misfire="skip", misfire_grace="5m"), Entry(cursor=at("3:00")), at("4:05"))
    assert (times(decision), decision.missed) == (["04:00"], None)
    decision = decide(planned(**HOURLY, misfire="skip", misfire_grace="5m"), Entry(cursor=at("3:00")), at("4:05:01"))
    assert times(decision) == []
    assert decision.missed
    assert decision.missed.count == 1


@pytest.mark.parametrize(
    ("policy", "now", "expected", "dropped"),
    [
        ("skip", "8:30", [], 5),
        ("once", "8:30", ["08:00"], 4),
        ("all", "8:30", ["04:00", "05:00", "06:00", "07:00", "08:00"], 0),
        ("skip", "8:00:30", ["08:00"], 4),
        ("once", "8:00:30", ["08:00"], 4),
        ("all", "8:00:30", ["04:00", "05:00", "06:00", "07:00", "08:00"], 0),
    ],
)
def test_downtime(policy: str, now: str, expected: list[str], dropped: int) -> None:
    decision = decide(planned(**HOURLY, misfire=policy), Entry(cursor=at("3:00"), ticked=at("3:00")), at(now))
    assert times(decision) == expected
    assert decision.cursor == at("8:00")
    assert decision.missed
    assert decision.missed.dropped == dropped
    assert decision.missed.first == at("4:00")


def test_once_stands_for_all_that_was_missed() -> None:
    (tick,) = decide(planned(**HOURLY), Entry(cursor=at("3:00"), ticked=at("3:00")), at("8:30")).ticks
    assert (tick.period_start, tick.planned) == (at("3:00"), at("8:00"))
    (tick,) = decide(planned(**HOURLY), Entry(cursor=at("3:00"), ticked=at("3:00")), at("8:00:05")).ticks
    assert (tick.period_start, tick.planned) == (at("3:00"), at("8:00"))


def test_all_has_a_limit_and_runs_the_newest() -> None:
    limited = planned(**HOURLY, misfire="all", misfire_limit=2)
    decision = decide(limited, Entry(cursor=at("3:00")), at("8:30"))
    assert times(decision) == ["07:00", "08:00"]
    assert decision.missed
    assert (decision.missed.count, decision.missed.dropped) == (5, 3)
    assert [tick.period_start for tick in decision.ticks] == [at("6:00"), at("7:00")]


def test_a_clock_that_went_back_ticks_nothing_twice() -> None:
    assert decide(planned(**HOURLY), Entry(cursor=at("8:00")), at("5:00")).ticks == ()
    assert times(decide(planned(**HOURLY), Entry(cursor=at("8:00")), at("9:00"))) == ["09:00"]


def test_skipping_overlap_expires_at_the_next_tick() -> None:
    (tick,) = decide(planned(Overlap.SKIP, **HOURLY), Entry(cursor=at("3:00")), at("4:00:01")).ticks
    assert tick.expires_at == at("5:00")
    (made_up,) = decide(planned(Overlap.SKIP, **HOURLY), Entry(cursor=at("3:00")), at("8:30")).ticks
    assert (made_up.planned, made_up.expires_at) == (at("8:00"), at("9:00"))


def test_expires_counts_from_the_tick_or_for_a_missed_one_from_now() -> None:
    (tick,) = decide(planned(**HOURLY, expires="10m"), Entry(cursor=at("3:00")), at("4:00:30")).ticks
    assert tick.expires_at == at("4:10")
    (made_up,) = decide(planned(**HOURLY, expires="10m"), Entry(cursor=at("3:00")), at("8:30")).ticks
    assert made_up.expires_at == at("8:40")


def test_jitter_holds_a_tick_back_and_keeps_its_planned_time() -> None:
    with_jitter = planned(**HOURLY, jitter="10m")
    due = with_jitter.timetable.due(at("4:00"))
    assert at("4:00") < due < at("4:10")
    assert decide(with_jitter, Entry(cursor=at("3:00")), due - timedelta(seconds=1)).ticks == ()
    (tick,) = decide(with_jitter, Entry(cursor=at("3:00")), due).ticks
    assert (tick.planned, tick.due) == (at("4:00"), due)


def test_a_schedule_nobody_has_seen_starts_now() -> None:
    assert first_entry(planned(**HOURLY).schedule, at("3:30")).cursor == at("3:30")
    just_missed = planned(at="2026-11-24T03:29:40+00:00")
    entry = first_entry(just_missed.schedule, at("3:30"))
    assert times(decide(just_missed, entry, at("3:30"))) == ["03:29"]
    long_gone = planned(at="2026-11-24T01:00:00+00:00")
    assert decide(long_gone, first_entry(long_gone.schedule, at("3:30")), at("3:30")).ticks == ()


@given(
    st.sampled_from([{"every": "7s"}, {"every": "1h"}, {"cron": "*/5 * * * *"}, {"cron": "0 3 * * *", "tz": "Europe/Berlin"}]),
    st.lists(st.tuples(st.integers(0, 7200), st.booleans()), min_size=1, max_size=20),
)
def test_every_planned_time_is_ticked_or_missed_exactly_once(fields: dict[str, str], steps: list[tuple[int, bool]]) -> None:
    """Whatever the pauses between looks, backward jumps included: published and dropped together are what was planned."""
    each = planned(**fields, misfire="all", misfire_limit=5, misfire_grace="30s")
    entry, now, ticked, dropped = Entry(cursor=DAY), DAY, [], 0
    latest = DAY
    for seconds, back in steps:
        now += timedelta(seconds=-seconds / 2 if back else seconds)
        latest = max(latest, now)
        decision = decide(each, entry, now)
        ticked += [tick.planned for tick in decision.ticks]
        dropped += decision.missed.dropped if decision.missed else 0
        entry.cursor = decision.cursor
    everything = list(each.timetable.between(DAY, latest))
    assert ticked == sorted(set(ticked))
    assert set(ticked) <= set(everything)
    assert len(ticked) + dropped == len(everything)
