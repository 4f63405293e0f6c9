"""One real RabbitMQ for the whole run, one random prefix for each test."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from rmqjobs.amqp.connection import connect
from rmqjobs.errors import BrokerError
from rmqjobs.settings import Settings
from rmqjobs.testing.broker import NoBroker, RunningBroker, running_broker


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """A real broker: skipped without one on a contributor's machine, failed in CI."""
    try:
        with running_broker() as broker:
            yield broker
    except NoBroker as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
async def settings(broker: RunningBroker) -> AsyncIterator[Settings]:
    """Settings with a prefix of the test's own; what it declared goes away with it."""
    settings = Settings(
        url=broker.url,
        prefix=f"test-{secrets.token_hex(4)}",
        journal_interval=timedelta(milliseconds=50),
        grace=timedelta(seconds=5),
        management_url=broker.management_url,
    )
    yield settings
    await sweep(settings)


async def sweep(settings: Settings) -> None:
    """Deletes all queues and exchanges of a prefix that version 1 can have declared."""
    from tests.helpers import declared_names  # noqa: PLC0415 - it imports test plugins

    connection = await connect(settings.broker, name="sweep", heartbeat=settings.heartbeat)
    queues, exchanges = declared_names(settings.prefix)
    channel = await connection.channel()
    for method, names in (("queue_delete", queues), ("exchange_delete", exchanges)):
        for name in names:
            try:
                await channel.call(method, **{method.split("_")[0]: name})
            except BrokerError:  # not there
                channel = await connection.channel()
    await connection.close()
    await asyncio.sleep(0)
