"""The journal never holds up a job: not when something else has its name, and not when it is gone."""

import asyncio
from typing import Any

import pytest

from rmqjobs import Settings
from rmqjobs.amqp.connection import connect
from rmqjobs.journal import BATCH
from rmqjobs.topology import Names
from tests.helpers import Note, Stage, depth, events, publishing, until, working


async def declare_journal(settings: Settings, **arguments: Any) -> None:
    connection = await connect(settings.broker, name="test", heartbeat=settings.heartbeat)
    channel = await connection.channel()
    queue = Names(settings.prefix).journal
    await channel.call("queue_delete", queue=queue)
    await channel.call("queue_declare", queue=queue, durable=True, arguments=arguments)
    await connection.close()


@pytest.mark.parametrize(
    "arguments", [{"x-queue-type": "quorum"}, {"x-queue-type": "classic"}, {}], ids=["quorum", "classic", "no type"]
)
async def test_something_else_of_that_name_holds_up_no_job(
    settings: Settings, arguments: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    await declare_journal(settings, **arguments)
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        for n in range(20):
            await jobs.publish(Note(text="a", n=n))
        await until(lambda: len(stage.seen) == 20)
        await asyncio.sleep(1)
    assert await depth(settings, "journal") == 0, "what is no stream is not filled up"
    said = [record.getMessage() for record in caplog.records if record.name == "rmqjobs.journal"]
    assert said, "what cannot be written is told"
    assert len(said) <= 6, "now and then, by the worker and by the publisher"


async def test_a_stream_with_other_limits_is_a_journal_too(settings: Settings) -> None:
    """Somebody has made it, with the binding that every version makes."""
    async with working(Stage(), settings):
        pass
    names = Names(settings.prefix)
    connection = await connect(settings.broker, name="test", heartbeat=settings.heartbeat)
    channel = await connection.channel()
    await declare_journal(settings, **{"x-queue-type": "stream", "x-max-age": "1D"})
    await channel.call("queue_bind", queue=names.journal, exchange=names.events, routing_key="#")
    await connection.close()
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await jobs.publish(Note(text="a"))
        await until(lambda: stage.seen)
    assert ("succeeded", "demo.note") in await events(settings)


async def test_records_wait_for_a_journal_that_was_deleted(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        connection = await connect(settings.broker, name="test", heartbeat=settings.heartbeat)
        channel = await connection.channel()
        await channel.call("queue_delete", queue=Names(settings.prefix).journal)
        await jobs.publish(Note(text="a"))
        await until(lambda: stage.seen)
        await asyncio.sleep(0.3)
        async with working(Stage(), settings):  # declares it again
            pass
        await connection.close()
        assert await until(lambda: is_recorded(settings))


async def is_recorded(settings: Settings) -> bool:
    return ("succeeded", "demo.note") in await events(settings)


async def test_a_publisher_is_closed_at_once_whatever_its_journal_is_doing(settings: Settings) -> None:
    """A batch is full in the same turn of the loop in which the publisher is closed."""
    for count in (BATCH - 1, BATCH, BATCH + 1, 2 * BATCH) * 5:
        async with asyncio.timeout(60), publishing(settings) as jobs:
            await jobs.publish_many(Note(text="a", n=n) for n in range(count))
