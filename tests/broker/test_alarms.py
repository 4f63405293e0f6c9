"""A broker that takes no messages: readiness says so, and all is as before when the alarm is over. On a node of its own."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import Settings
from rmqjobs.events import Event, EventKind
from rmqjobs.testing.broker import PrivateNode
from rmqjobs.worker import Worker
from tests.helpers import Act, Note, Stage, private_node, publishing, until, working


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    with private_node() as node:
        yield node


ALARMS = [
    (("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.6")),
    (("set_disk_free_limit", "1000000000000"), ("set_disk_free_limit", "50MB")),
]


@pytest.mark.parametrize(("raised", "over"), ALARMS, ids=["memory", "disk"])
async def test_a_worker_is_not_ready_while_the_broker_takes_no_messages(
    node: PrivateNode, raised: tuple[str, ...], over: tuple[str, ...]
) -> None:
    settings, stage = Settings(url=node.url, prefix=f"alarm-{secrets.token_hex(3)}"), Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await jobs.publish(Note(text="before"))
        await jobs.publish(Act(what="fail twice"))
        await until(lambda: len(stage.seen) == 4 and worker.is_ready)
        before = worker._consuming.connection
        async with alarm(node, raised, over):
            await until(lambda: writes_and_is_not_ready(worker))
            assert worker._consuming.actual == worker._consuming.expected, "it still consumes: what runs can end"
        await until(lambda: worker.is_ready)
        await jobs.publish(Note(text="after"))
        await until(lambda: len(stage.seen) == 5)
        assert worker._consuming.connection is before, "an alarm is no reason to connect again"


def writes_and_is_not_ready(worker: Worker) -> bool:
    """RabbitMQ tells of an alarm only whoever publishes: a worker does whenever it has something for the journal."""
    worker._journal.record(Event(EventKind.LOG, datetime.now(UTC), "", ""))
    return not worker.is_ready


@asynccontextmanager
async def alarm(node: PrivateNode, raised: Sequence[str], over: Sequence[str]) -> AsyncIterator[None]:
    """An alarm from here to there. `rabbitmqctl` takes seconds to start, and the event loop goes on meanwhile."""
    await asyncio.to_thread(node.ctl, *raised)
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, *over)


async def test_a_drain_does_not_wait_for_an_alarm_to_be_over(node: PrivateNode) -> None:
    short = timedelta(seconds=1)
    settings = Settings(url=node.url, prefix=f"alarm-{secrets.token_hex(3)}", concurrency=1, publish_timeout=short)
    stage = Stage()
    worker = Worker(stage.registry, settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish_many([Act(what="fail"), *(Act(what="wait", n=n) for n in range(3))])
        await until(lambda: len(stage.seen) >= 2 and worker.is_ready)
    async with alarm(node, *ALARMS[0]):
        await until(lambda: writes_and_is_not_ready(worker))
        async with asyncio.timeout(60):  # the alarm is not over before
            await worker.drain(short)
