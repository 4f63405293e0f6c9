"""The read model on a real stream: rebuilt, followed twice, and whatever happens to broker, stream and disk."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rmqjobs import Settings
from rmqjobs.amqp import streams
from rmqjobs.amqp.connection import connect
from rmqjobs.lifecycle import State
from rmqjobs.readmodel import follower as following
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.filters import JobFilter
from rmqjobs.readmodel.follower import Follower
from rmqjobs.readmodel.queries import Queries
from rmqjobs.topology import Names
from tests.helpers import Act, Note, Stage, private_node, publish_raw, publishing, until, working

TABLES = ("jobs", "records", "rates", "ticks", "workers", "actions", "followed")


@asynccontextmanager
async def followed(settings: Settings, path: Path | str = schema.MEMORY, **options: Any) -> AsyncIterator[Follower]:
    """A follower that follows."""
    follower = Follower(settings, path, **options)
    await follower.open()
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await follower.close()


async def caught_up(settings: Settings, path: Path | str, **options: Any) -> dict[str, list[Any]]:
    """What a model knows after it has read all there is."""
    follower = Follower(settings, path, **options)
    await follower.open()
    try:
        await follower.catch_up()
        return await follower.ask(content)
    finally:
        await follower.close()


def content(queries: Queries) -> dict[str, list[Any]]:
    return {table: queries._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}


async def some_jobs(settings: Settings, count: int = 40) -> list[str]:
    async with publishing(settings) as jobs, working(Stage(), settings):
        ids = [await jobs.publish(Act(what=("ok", "ok", "reject", "report")[each % 4])) for each in range(count)]
        await asyncio.sleep(1)
    return ids


async def delete_journal(settings: Settings) -> None:
    connection = await connect(settings.broker, name="test", heartbeat=settings.heartbeat)
    await (await connection.channel()).call("queue_delete", queue=Names(settings.prefix).journal)
    await connection.close()


async def counted(follower: Follower, **expected: int) -> bool:
    counts = await follower.ask(lambda queries: queries.counts())
    return all(counts[State(state)] == count for state, count in expected.items())


async def test_a_model_that_is_made_again_is_the_same(settings: Settings, tmp_path: Path) -> None:
    ids = await some_jobs(settings)
    path, shown = tmp_path / "model.sqlite", []
    first = await caught_up(settings, path, progress=lambda offset, end: shown.append((offset, end)))
    assert {row[0] for row in first["jobs"]} == set(ids)
    assert shown
    assert shown[-1][0] >= shown[-1][1]
    for each in path.parent.iterdir():
        each.unlink()
    assert await caught_up(settings, path) == first
    assert await caught_up(settings, path) == first  # nothing is read twice
    assert await caught_up(settings, tmp_path / "other.sqlite") == first


async def test_it_follows_what_happens_now(settings: Settings) -> None:
    await some_jobs(settings, 4)
    async with followed(settings) as follower:
        await until(lambda: counted(follower, done=3, dead=1))
        assert follower.caught_up.is_set()
        async with publishing(settings) as jobs, working(Stage(), settings):
            await jobs.publish(Note(text="a"))
            await until(lambda: counted(follower, done=4))
            beats = await follower.ask(lambda queries: queries.workers())
            assert [beat.data["state"] for beat in beats].count("ready") == 1


async def test_a_stream_that_is_made_anew_is_read_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "_LOOK_EVERY", 0.5)
    monkeypatch.setattr(following, "KNOWN_WITHIN", 1.0)
    await some_jobs(settings, 8)
    async with followed(settings) as follower:
        await until(lambda: counted(follower, done=6, dead=2))
        await delete_journal(settings)
        await some_jobs(settings, 4)
        await until(lambda: counted(follower, done=9, dead=3))  # what it knew before stays
        assert not follower.problem


async def test_a_restart_of_the_broker_is_survived() -> None:
    with private_node() as node:
        settings = Settings(url=node.url)
        await some_jobs(settings, 4)
        async with followed(settings) as follower:
            await until(lambda: counted(follower, done=3, dead=1))
            await asyncio.to_thread(node.stop)
            await until(lambda: follower.problem)
            await asyncio.to_thread(node.start)
            await some_jobs(settings, 4)
            await until(lambda: counted(follower, done=6, dead=2), timeout=120)
            assert not follower.problem


async def test_a_full_disk_leaves_nothing_out(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with followed(settings, tmp_path / "model.sqlite") as follower:
        await some_jobs(settings, 4)
        await until(lambda: counted(follower, done=3, dead=1))
        await follower.ask(lambda queries: queries._db.execute("PRAGMA max_page_count = 1"))
        await some_jobs(settings, 200)
        await until(lambda: "full" in follower.problem)
        await asyncio.sleep(2)
        await follower.ask(lambda queries: queries._db.execute("PRAGMA max_page_count = 1000000"))
        await until(lambda: counted(follower, done=153, dead=51))
        assert not follower.problem
    said = [each for each in caplog.records if each.name == "rmqjobs.readmodel" and "full" in each.__dict__.get("because", "")]
    assert len(said) == 1


async def test_records_of_a_newer_version_are_left_out(settings: Settings) -> None:
    await some_jobs(settings, 4)
    body = b'{"kind": "teleported", "at": "2030-01-01T00:00:00Z", "job": "7", "type": "x"}\n{"nonsense'
    body += b'\n{"kind": "succeeded", "at": "2026-01-01T00:00:00Z", "job": "8", "type": "x", "new": {"a": 1}}'
    await publish_raw(settings, body, exchange="events", key="another")
    found = await caught_up(settings, schema.MEMORY)
    assert "8" in {row[0] for row in found["jobs"]}
    assert "7" not in {row[0] for row in found["jobs"]}


async def test_a_missing_stream_is_no_error(settings: Settings) -> None:
    async with working(Stage(), settings):
        pass
    await delete_journal(settings)
    async with followed(settings) as follower:
        await until(lambda: follower.problem)
        assert "there is no stream" in follower.problem
        assert (await follower.ask(lambda queries: queries.jobs(JobFilter()))).jobs == []
        async with working(Stage(), settings):
            await until(lambda: not follower.problem, timeout=90)
