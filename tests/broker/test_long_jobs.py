"""Jobs longer than the broker's own patience: a node whose consumer_timeout is two seconds."""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rmqjobs import Plugin, Settings
from rmqjobs.plugins import registry_of
from rmqjobs.testing.broker import PrivateNode
from rmqjobs.worker import Worker
from rmqjobs.worker.service import CONSUMER_TIMEOUTS
from tests.helpers import Note, Slow, Stage, depth, events, private_node, publishing, succeeded, until, working


@pytest.fixture(scope="module")
def impatient() -> Iterator[PrivateNode]:
    with private_node("consumer_timeout = 2000") as node:
        node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")  # how often a channel looks
        yield node


@pytest.fixture
def settings(impatient: PrivateNode) -> Settings:
    return Settings(url=impatient.url, prefix=f"long-{secrets.token_hex(3)}", consumer_timeout=timedelta(seconds=2))


def said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return any(words in str(vars(record)) for record in caplog.records)


async def test_a_job_beyond_the_brokers_limit_runs_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Before RabbitMQ 3.12 the channel is closed with 406 again and again; the job comes back to the run it has here."""
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await until(lambda: worker.is_ready)
        old = worker._consuming.connection is not None and worker._consuming.connection.broker_version < CONSUMER_TIMEOUTS
        await jobs.publish(Slow(seconds=6))
        await until(lambda: stage.seen)
        await until(lambda: not worker.running)
        await jobs.publish(Note(text="after"))
        await until(lambda: succeeded(settings, 2))  # also the one that had to come back first
    assert await depth(settings, "demo.thread") == 0
    assert [entry[0] for entry in stage.seen] == ["slow", "note"]
    assert said(caplog, "above the longest max_runtime") == old
    assert said(caplog, "max_runtime is beyond the broker's limit") == old


async def test_a_job_beyond_its_consumers_limit_comes_back_to_its_run(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """From RabbitMQ 3.12 on the consumer brings the limit; what exceeds it is taken back, and settled all the same."""
    plugin, seen = Plugin("demo"), []

    @plugin.handler(max_runtime=timedelta(seconds=1))
    async def note(_payload: Note) -> None:
        seen.append("began")
        for _ in range(60):
            try:  # as a careless handler does
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                seen.append("ignored")

    worker = Worker(registry_of(plugin), settings)
    subscription = worker._consuming._subscriptions[0]
    worker._consuming._subscriptions = [
        type(subscription)(subscription.queue, subscription.name, subscription.prefetch, {"x-consumer-timeout": 2000})
    ]
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="stubborn"))
        await until(lambda: seen)
        await until(lambda: not worker.running)
    await until(lambda: worker.is_ready)
    await until(lambda: _settled(settings))  # it had to come back first
    await worker.drain(timedelta(seconds=1))
    assert seen == ["began", "ignored"]
    assert said(caplog, "consumer lost")
    assert await depth(settings, "demo") == 0


async def _settled(settings: Settings) -> bool:
    return any(kind in ("succeeded", "dead") for kind, _ in await events(settings))
