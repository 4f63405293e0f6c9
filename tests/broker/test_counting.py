"""A queue is not called empty because its leader is busy."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rmqjobs import Settings
from rmqjobs.amqp import counting
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import BrokerError
from rmqjobs.testing.broker import PrivateNode
from tests.helpers import Act, Stage, dead_letters, private_node, publishing, until, working


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    with private_node() as node:
        yield node


@pytest.fixture
def settings(node: PrivateNode) -> Settings:
    return Settings(url=node.url, prefix="busy", journal_interval=timedelta(milliseconds=50), grace=timedelta(seconds=5))


def suspend(node: PrivateNode, verb: str) -> None:
    """Stops or continues the leader of the dead-letter queue: the broker sees one that has much to do."""
    node.ctl("eval", f"sys:{verb}(whereis('%2F_busy.demo.dead')).")


async def test_dead_letters_of_a_busy_broker_are_found(
    node: PrivateNode, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        job_id = await jobs.publish(Act(what="reject"))
        await until(lambda: dead_letters(settings))
    monkeypatch.setattr(counting, "PATIENCE", 120.0)  # on a busy machine `rabbitmqctl` takes long to start
    await asyncio.to_thread(suspend, node, "suspend")
    try:
        looking = asyncio.create_task(dead_letters(settings))
        await asyncio.sleep(1)
        assert not looking.done()
        await asyncio.to_thread(suspend, node, "resume")
        assert [letter.id for letter in await looking] == [job_id]

        await asyncio.to_thread(suspend, node, "suspend")
        monkeypatch.setattr(counting, "PATIENCE", 0.5)
        with pytest.raises(BrokerError, match=r"cannot tell what is in 'busy\.demo\.dead'"):
            async with desk(settings) as connection:
                _ = [letter async for letter in Review(connection, settings, by="test").letters("demo", Selection())]
    finally:
        await asyncio.to_thread(suspend, node, "resume")
