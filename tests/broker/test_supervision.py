"""Expected consumers against actual ones: whatever takes them away, they come back, and readiness says so meanwhile."""

import asyncio

import pytest
from pika.exceptions import StreamLostError

from rmqjobs import Settings
from tests.helpers import Note, Stage, publishing, raw_channel, until, working


async def test_a_lost_connection_comes_back(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await until(lambda: worker.is_ready)
        connection = worker._consuming.connection
        assert connection is not None
        connection.raw._terminate_stream(StreamLostError("cut"))  # as a network does, without a word
        await until(lambda: not worker.is_ready)
        await jobs.publish(Note(text="meanwhile"))
        await until(lambda: worker.is_ready)
        await until(lambda: stage.seen)


async def test_a_deleted_queue_is_declared_and_consumed_again_by_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 3.10 does not tell consumers of a quorum queue: whoever looks first declares it, the others must notice too."""
    monkeypatch.setattr("rmqjobs.amqp.consuming.CHECK_EVERY", 0.5)
    one, two = Stage(), Stage()
    async with publishing(settings) as jobs, working(one, settings), working(two, settings):
        async with raw_channel(settings) as channel:
            await channel.queue_delete(f"{settings.prefix}.demo")

        async def both_work() -> bool:
            await jobs.publish_many(Note(text="after", n=n) for n in range(400))
            await asyncio.sleep(0.3)
            return bool(one.seen and two.seen)

        await until(both_work)


async def test_a_channel_the_broker_closed_is_opened_again(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await until(lambda: worker.is_ready)
        lease, channel, _ = worker._consuming._leases["demo"]
        channel.raw.basic_ack(999)  # 406: unknown delivery tag
        await until(lambda: lease.is_lost)
        await jobs.publish(Note(text="after"))
        await until(lambda: stage.seen)
        await until(lambda: worker.is_ready)
