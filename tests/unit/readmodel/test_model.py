"""The read model: any order of records, repeats included, ends in the same rows; and what is asked is answered from them."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rmqjobs.amqp.streams import StreamMessage
from rmqjobs.errors import InvalidFilter
from rmqjobs.events import Event, EventKind
from rmqjobs.lifecycle import State, state_of
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.filters import JobFilter, parse
from rmqjobs.readmodel.queries import Queries
from rmqjobs.readmodel.writing import Writer
from rmqjobs.wire import events as wire

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TABLES = ("jobs", "records", "rates", "ticks", "workers", "actions")


def record(kind: str, job: str = "7", second: float = 0, attempt: int = 1, source: str = "w@host1:1", **data: object) -> Event:
    queue = "" if kind in ("published", "replayed", "dropped") else "demo"
    at = NOON + timedelta(seconds=second)
    return Event(EventKind(kind), at, job, "demo.note", queue, attempt, data, source)  # type: ignore[arg-type]


def messages(events: Sequence[Event], size: int = 3) -> list[StreamMessage]:
    parts = [events[first : first + size] for first in range(0, len(events), size)]
    return [StreamMessage(offset, b"\n".join(map(wire.encode, part)), "") for offset, part in enumerate(parts)]


def model(*events: Event, now: datetime = NOON + MINUTE, batch: int = 2) -> tuple[Writer, Queries]:
    connection = schema.open_file(schema.MEMORY)
    writer, all_of_it = Writer(connection), messages(events)
    for first in range(0, len(all_of_it), batch):
        writer.take(all_of_it[first : first + batch])
    writer.keep(now)
    return writer, Queries(connection)


def content(queries: Queries) -> dict[str, list[Any]]:
    rows = {table: queries._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES}
    counts = queries._db.execute("SELECT * FROM counts WHERE jobs != 0 ORDER BY 1, 2, 3").fetchall()
    return rows | {"counts": counts}


KINDS = [
    "published",
    "started",
    "progress",
    "log",
    "succeeded",
    "retried",
    "snoozed",
    "returned",
    "dead",
    "replayed",
    "cancelled",
]
RECORDS = st.builds(
    record,
    st.sampled_from(KINDS),
    st.sampled_from(["7", "8"]),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["w@host1:1", "w@host2:1"]),
    in_seconds=st.sampled_from([1, 900]),
    seconds=st.sampled_from([0.25, 0.5]),
    error=st.sampled_from(["a.ValueError: one", "KeyError: two"]),
    done=st.integers(0, 2),
)
OTHERS = st.sampled_from(
    [
        Event(EventKind.TICKED, NOON, "s@1", "demo.note", data={"schedule": "demo.nightly"}, source="s"),
        Event(EventKind.WORKER, NOON, "", "", data={"state": "ready"}, source="w@host1:1"),
        Event(EventKind.WORKER, NOON + MINUTE, "", "", data={"state": "stopped"}, source="w@host1:1"),
        Event(EventKind.ACTED, NOON, "", "", data={"action": "pause", "by": "ann", "queue": "demo"}, source="ann"),
    ]
)


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.lists(RECORDS | OTHERS, max_size=20), st.data())
def test_any_order_and_any_repeats_end_in_the_same_rows(made: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(made + made[: data.draw(st.integers(0, len(made)))]))
    _, one = model(*made)
    _, other = model(*shuffled, batch=data.draw(st.integers(1, 5)))
    assert content(one) == content(other)
    for job in one.jobs(JobFilter()).jobs:
        assert job.state is state_of([each for each in made if each.job == job.id], NOON + MINUTE)
    counted = {state: one.count(JobFilter(states=(state,))).jobs for state in State}
    assert counted == one.counts()
    assert sum(counted.values()) == len(one.jobs(JobFilter()).jobs)


def test_a_row_tells_what_is_known() -> None:
    _, queries = model(
        record("published", app="shop"),
        record("retried", second=5, error="demo.errors.TimeoutError: no answer", in_seconds=900),
        record("progress", second=4, done=1, total=4, note="half"),
    )
    (job,) = queries.jobs(JobFilter()).jobs
    assert (job.id, job.type, job.queue, job.worker, job.app) == ("7", "demo.note", "demo", "w@host1:1", "shop")
    assert (job.state, job.attempt, job.due) == (State.RETRYING, 1, NOON + timedelta(seconds=905))
    assert (job.error_type, job.error) == ("TimeoutError", "demo.errors.TimeoutError: no answer")
    assert job.progress == {"done": 1, "total": 4, "note": "half"}
    assert (job.first, job.at) == (NOON, NOON + timedelta(seconds=5))
    assert [each.kind.value for each in queries.records("7")] == ["published", "progress", "retried"]
    assert queries.ids("") == queries.ids("7") == ["7"]
    assert queries.ids("8") == []


def test_what_is_due_waits_and_is_counted_so() -> None:
    writer, queries = model(record("retried", in_seconds=900), now=NOON)
    assert queries.counts()[State.RETRYING] == 1
    writer.keep(NOON + timedelta(minutes=15))
    assert queries.counts()[State.RETRYING] == 0
    assert queries.jobs(JobFilter(states=(State.QUEUED,))).jobs[0].due is None


def many() -> Iterator[Event]:
    for number in range(60):
        yield record("published", f"job-{number:02}", number)
        kind = ("succeeded", "dead", "retried")[number % 3]
        error = {"error": f"demo.Error{number % 2}: number {number}"} if kind != "succeeded" else {}
        yield record(kind, f"job-{number:02}", number + 30, source=f"w@host{number % 4}:1", in_seconds=9000, **error)
    for host in range(4):
        yield Event(EventKind.WORKER, NOON, "", "", data={"state": "ready"}, source=f"w@host{host}:1")


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("", 60),
        ("state:done", 20),
        ("state:done state:dead", 40),
        ("type:demo.note queue:demo state:retrying", 20),
        ("type:other", 0),
        ("worker:host1", 15),
        ("worker:host1 worker:host2 state:done", 10),
        ("worker:nobody", 0),
        ("error:Error1", 20),
        ("since:40s", 40),
        ("before:40s", 20),
        ("job-07", 1),
        ('"number 4"', 8),
        ('"number 4*"', 0),
    ],
)
def test_filters_find_and_count_the_same(typed: str, count: int) -> None:
    _, queries = model(*many(), now=NOON)
    which = parse(typed, NOON + MINUTE)
    found, after = [], None
    while True:
        page = queries.jobs(which, limit=7, after=after)
        found += page.jobs
        after = page.after
        if after is None:
            break
    assert len(found) == len({job.id for job in found}) == queries.count(which).jobs == count
    assert [job.first for job in found] == sorted((job.first for job in found), reverse=True)


def test_a_filter_that_means_too_much_is_refused() -> None:
    _, queries = model(*many())
    with pytest.raises(InvalidFilter, match="64 combinations"):
        queries.jobs(JobFilter(types=tuple(map(str, range(9))), states=tuple(State)))
    with pytest.raises(InvalidFilter, match="beginning of a page"):
        queries.jobs(JobFilter(), after="nonsense")


def test_rates_ticks_workers_and_actions() -> None:
    _, queries = model(
        record("succeeded", "1", 0, seconds=0.5),
        record("succeeded", "2", 10, seconds=1.5),
        record("dead", "3", 61, seconds=1),
        Event(EventKind.TICKED, NOON, "s@1", "demo.note", data={"schedule": "demo.nightly"}, source="s"),
        Event(EventKind.WORKER, NOON, "", "", data={"state": "ready"}, source="w"),
        Event(EventKind.ACTED, NOON, "", "", data={"action": "pause", "by": "ann"}, source="ann"),
    )
    assert queries.rates(NOON - MINUTE) == [
        {"minute": NOON, "kind": "succeeded", "jobs": 2, "seconds": 2.0},
        {"minute": NOON + MINUTE, "kind": "dead", "jobs": 1, "seconds": 1.0},
    ]
    assert queries.rates(NOON - MINUTE, "other") == []
    assert [tick["job"] for tick in queries.ticks("demo.nightly")] == ["s@1"]
    assert [beat.data["state"] for beat in queries.workers()] == ["ready"]
    assert queries.actions() == [{"at": NOON, "action": "pause", "by": "ann"}]


def test_the_oldest_go_when_there_is_no_more_room(tmp_path: Path) -> None:
    connection = schema.open_file(tmp_path / "model.sqlite")
    writer, queries = Writer(connection, max_bytes=600_000), Queries(connection)
    for start in range(0, 6000, 500):
        batch = [record("succeeded", f"job-{start + number:05}", start + number) for number in range(500)]
        writer.take(messages(batch, 500))
        writer.keep(NOON)
    found = queries.jobs(JobFilter(), limit=1000).jobs
    assert found[0].id == "job-05999"
    assert 100 < queries.count(JobFilter()).jobs < 5000
    assert queries.records("job-00000") == []
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "model.sqlite").stat().st_size < 2_000_000


@pytest.mark.parametrize("spoilt", ["garbage", "another version"])
def test_a_file_that_cannot_be_used_is_set_aside(tmp_path: Path, spoilt: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "model.sqlite"
    if spoilt == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    else:
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version = 99")
        other.close()
    connection = schema.open_file(path)
    assert Queries(connection).jobs(JobFilter()).jobs == []
    assert (tmp_path / "model.sqlite.aside").exists()
    assert [each.message for each in caplog.records] == ["the read model is made anew"]


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"model\.sqlite"):
        schema.open_file(tmp_path / "nowhere" / "model.sqlite")


def test_nothing_is_half_written() -> None:
    writer, queries = model(record("succeeded"))
    writer._db.execute("DROP TABLE actions")
    with pytest.raises(sqlite3.Error):
        writer.take(messages([record("dead", "8"), Event(EventKind.ACTED, NOON, "", "", data={"action": "pause"})]))
    assert [job.id for job in queries.jobs(JobFilter()).jobs] == ["7"]


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2027-01-01T12:00:00+00:00")
ODD_RECORDS = st.dictionaries(
    st.sampled_from(["kind", "at", "job", "type", "queue", "attempt", "source", "data", "new"]),
    ODD | st.dictionaries(st.sampled_from(["run_at", "in_seconds", "seconds", "error", "schedule", "done", "by", "app"]), ODD),
)
ODD_KINDS = st.sampled_from([kind.value for kind in EventKind])


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(ODD_RECORDS, ODD_KINDS), max_size=5))
def test_whatever_stands_in_the_stream_the_model_goes_on(odd: list[tuple[dict[str, Any], str]]) -> None:
    sound = {"at": "2027-01-01T12:00:00+00:00", "job": "7", "type": "demo.note"}
    lines = [json.dumps(variant) for record, kind in odd for variant in (record, {**sound, **record, "kind": kind})]
    writer, queries = model(record("succeeded", "good"))
    writer.take([StreamMessage(9, "\n".join(lines).encode(errors="surrogatepass"), "somebody")])
    writer.keep(NOON + MINUTE)
    assert "good" in {job.id for job in queries.jobs(JobFilter(), limit=1000).jobs}
    for job_id in queries.ids("", 100):
        assert queries.records(job_id)
