"""Short jobs are fetched ahead; those that got long go back, for workers that are idle."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from rmqjobs import Payload, Plugin, Settings
from rmqjobs.amqp.leases import Lease
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.worker import Worker
from tests.helpers import depth, publishing, until

SLOTS = 2


class Nap(Payload, type="ahead.nap"):
    n: int
    seconds: float = 0.0


class Naps:
    """A plugin whose jobs take as long as they say, and how often each ran."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self.end = threading.Event()

    def registry(self) -> Registry:
        plugin = Plugin("ahead")

        @plugin.handler
        def nap(payload: Nap) -> None:
            self.end.wait(payload.seconds)
            self.runs[payload.n] += 1

        return registry_of(plugin)


@pytest.fixture
async def naps() -> Naps:
    return Naps()


@asynccontextmanager
async def running(registry: Registry, settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(registry, settings)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.drain(timedelta(seconds=5))


def lease_of(worker: Worker) -> Lease:
    lease = worker._consuming.lease("ahead.thread")
    assert lease is not None
    return lease


async def test_short_jobs_are_fetched_ahead(settings: Settings, naps: Naps) -> None:
    settings = settings.model_copy(update={"threads": SLOTS})
    async with publishing(settings) as jobs, running(naps.registry(), settings) as worker:
        own = lease_of(worker).subscription.prefetch
        publish = asyncio.create_task(jobs.publish_many(Nap(n=n) for n in range(8_000)))
        await until(lambda: lease_of(worker).ahead > own)
        await publish
        await until(lambda: len(naps.runs) == 8_000)
    assert set(naps.runs.values()) == {1}


async def test_what_got_long_goes_back(settings: Settings, naps: Naps) -> None:
    settings = settings.model_copy(update={"threads": SLOTS})
    async with publishing(settings) as jobs, running(naps.registry(), settings) as worker:
        await jobs.publish_many(Nap(n=n) for n in range(6_000))
        await until(lambda: lease_of(worker).ahead)
        await jobs.publish_many(Nap(n=n, seconds=600) for n in range(10_000, 10_300))
        own = lease_of(worker).subscription.prefetch
        await until(lambda: not lease_of(worker).ahead)

        async def all_but_its_own_are_back() -> bool:
            return await depth(settings, "ahead.thread") >= 300 - 2 * own - SLOTS  # some may still be the second consumer's

        await until(all_but_its_own_are_back)

        async def it_stays_so() -> (
            bool
        ):  # on a busy machine short ones may still be among them, for which it fetches ahead again
            looks = []
            for _ in range(10):
                await asyncio.sleep(0.1)
                looks.append(lease_of(worker).ahead)
            return not any(looks)

        await until(it_stays_so)
        assert await all_but_its_own_are_back()
        naps.end.set()  # the naps end at once: they are short again
        await until(lambda: len(naps.runs) == 6_300)
    assert set(naps.runs.values()) == {1}


async def test_singletons_are_never_fetched_ahead(settings: Settings) -> None:
    plugin, ran = Plugin("ahead"), Counter[int]()

    @plugin.handler(singleton=True)
    async def nap(payload: Nap) -> None:
        ran[payload.n] += 1

    async with publishing(settings) as jobs, running(registry_of(plugin), settings) as worker:
        await jobs.publish_many(Nap(n=n) for n in range(600))
        while len(ran) < 600:
            lease = worker._consuming.lease("ahead.nap")
            assert lease is not None
            assert lease.ahead == 0
            await asyncio.sleep(0.01)
    assert set(ran.values()) == {1}
