"""Claims: the first owner has a name, in the whole cluster; and a job that was published twice runs once."""

import asyncio
from datetime import timedelta

import pytest

from rmqjobs import Job, Plugin, Settings
from rmqjobs.amqp.claims import Claims, claim_of, release
from rmqjobs.amqp.connection import Connection, connect
from rmqjobs.errors import BrokerError, PermissionMissing
from rmqjobs.plugins import registry_of
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.topology import Names
from rmqjobs.wire.headers import MARK, SCHEDULE, SCHEDULED_FOR
from rmqjobs.worker import Worker
from tests.helpers import Note, Stage, events, publish_raw, until, working


async def connected(settings: Settings) -> Connection:
    return await connect(settings.broker, name="test", heartbeat=settings.heartbeat)


async def test_the_first_owner_has_it(settings: Settings) -> None:
    names = Names(settings.prefix)
    one, two = await connected(settings), await connected(settings)
    mine, theirs = Claims(names, lambda: one), Claims(names, lambda: two)
    assert await mine.take("a", "me")
    assert await mine.take("a", "me"), "as often as it likes"
    assert not await theirs.take("a", "you")
    assert await theirs.take("a", "me"), "wherever that owner is"
    assert await theirs.take("b", "you"), "a refusal costs only a channel"
    await one.close()
    assert not await theirs.take("a", "you"), "it outlives who made it"
    await release(two, names, ["a", "never taken"])
    assert await theirs.take("a", "you")
    await release(two, names, ["a", "b"])
    await two.close()


async def test_of_a_hundred_racers_one_wins(settings: Settings) -> None:
    names = Names(settings.prefix)
    connections = [await connected(settings) for _ in range(4)]
    claims = [Claims(names, lambda connection=connection: connection) for connection in connections]  # type: ignore[misc]
    for round_ in range(5):
        race = [claims[n % 4].take(f"race-{round_}", f"racer-{n}") for n in range(100)]
        assert sum(await asyncio.gather(*race)) == 1
    await release(connections[0], names, [f"race-{n}" for n in range(5)])
    for connection in connections:
        await connection.close()


async def tick(settings: Settings, mark: str | None, job_id: str) -> None:
    headers = {SCHEDULE: "demo.beat", SCHEDULED_FOR: 1_767_225_600_000} | ({MARK: mark} if mark else {})
    await publish_raw(
        settings, b'{"text": "tick"}', key="demo.note", message_id=job_id, type="demo.note", headers=headers, delivery_mode=2
    )


async def test_the_second_publication_is_skipped_with_a_record(settings: Settings) -> None:
    first, second, job_id = Stage(), Stage(), f"demo.beat@{settings.prefix}"
    async with working(first, settings), working(second, settings):
        await tick(settings, "one", job_id)
        await until(lambda: first.seen or second.seen)
        for mark in ("two", "two", "three"):
            await tick(settings, mark, job_id)
        await until(lambda: has_skipped(settings, 3))
        await tick(settings, "one", job_id)  # the first one, delivered again
        await until(lambda: len(first.seen) + len(second.seen) == 2)
        await tick(settings, None, job_id)  # of an older scheduler
        await until(lambda: len(first.seen) + len(second.seen) == 3)
    await forget(settings, job_id)


async def has_skipped(settings: Settings, count: int) -> bool:
    return [kind for kind, _ in await events(settings)].count("skipped") == count


async def forget(settings: Settings, *claims: str) -> None:
    connection = await connected(settings)
    await release(connection, Names(settings.prefix), claims)
    await connection.close()


async def test_a_worker_that_may_not_claim_runs_it_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*_arguments: object) -> bool:
        raise PermissionMissing("access to exchange refused")

    monkeypatch.setattr(Claims, "take", refused)
    stage = Stage()
    async with working(stage, settings):
        await tick(settings, "one", "demo.beat@x")
        await until(lambda: stage.seen)
    assert any("it may run twice" in record.getMessage() for record in caplog.records)


async def test_claims_of_old_ticks_go_by_themselves(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmqjobs.scheduler.claims.KEPT_TICKS", 2)
    monkeypatch.setattr("rmqjobs.scheduler.claims.AT_LEAST", timedelta(seconds=2))
    monkeypatch.setattr("rmqjobs.scheduler.claims.AT_MOST", timedelta(days=1))
    plugin, ran = Plugin("demo"), list[str]()
    plugin.schedule("beat", every=timedelta(seconds=1), payload=Note(text="tick"))

    @plugin.handler
    async def note(_payload: Note, job: Job) -> None:
        ran.append(job.id)

    registry = registry_of(plugin)
    worker, stop = Worker(registry, settings), asyncio.Event()
    await worker.start()
    scheduler = Scheduler(lambda: Catalogue(registry), settings)
    running = asyncio.create_task(scheduler.run(stop))
    await until(lambda: ran)
    assert await claimed(settings, ran[0])

    async def gone() -> bool:
        return not await claimed(settings, ran[0])

    await until(gone)
    active = scheduler._active
    assert active is not None
    claims = active.token.entries["demo.beat"].claims
    assert ran[0].partition("@")[2] not in claims
    stop.set()
    await running
    await worker.drain(timedelta(seconds=5))
    assert await claimed(settings, ran[-1]), "the last ones stay"
    await forget(settings, *ran)


async def claimed(settings: Settings, job_id: str) -> bool:
    connection = await connected(settings)
    channel = await connection.channel()
    try:
        await channel.call("exchange_declare", exchange=claim_of(Names(settings.prefix), job_id), passive=True)
    except BrokerError:
        return False
    finally:
        await connection.close()
    return True
