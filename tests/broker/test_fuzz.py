"""No message, however made, stops a worker: whatever RabbitMQ takes and delivers is settled, on the same connection."""

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pika import BasicProperties

from rmqjobs import Settings
from rmqjobs.amqp.connection import connect
from rmqjobs.errors import BrokerError
from tests.helpers import Note, Stage, depth, publishing, until, working
from tests.unit.wire.test_fuzz import BODIES, PROPERTIES

MESSAGES = st.lists(st.tuples(BODIES, PROPERTIES), min_size=10, max_size=40)


def note(**properties: Any) -> tuple[bytes, BasicProperties]:
    return b'{"text": "odd"}', BasicProperties(type="demo.note", **properties)


@pytest.mark.timeout(300)
@hypothesis_settings(
    max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(messages=MESSAGES)
@example(messages=[note(headers={"rmqjobs-attempt": 2**62}), note(headers={"x-delivery-count": -5}), note(message_id="")])
@example(messages=[note(expiration="10"), note(reply_to="nobody"), note(reply_to="amq.rabbitmq.reply-to.g1h2AA")])
@example(messages=[(b"[" * 1_000_000, BasicProperties()), (b"", BasicProperties(type="demo.note"))])
async def test_a_worker_settles_them_all_and_goes_on(settings: Settings, messages: list[tuple[bytes, BasicProperties]]) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await until(lambda: worker.is_ready)
        before = worker._consuming.connection
        await send(settings, messages)
        await jobs.publish(Note(text="after all"))
        await until(lambda: any(entry[1] == "after all" for entry in stage.seen))
        await until(lambda: not worker.running)
        assert await depth(settings, "demo") == 0
        assert worker.is_ready
        assert worker._consuming.connection is before, "none of them cost it its connection"


async def send(settings: Settings, messages: list[tuple[bytes, BasicProperties]]) -> None:
    """Straight to the work queue, past all that a publisher of ours would refuse; what RabbitMQ refuses is left out."""
    for body, properties in messages:
        connection = await connect(settings.broker, name="fuzz", heartbeat=timedelta(seconds=20))
        channel = await connection.channel()
        channel.raw.basic_publish("", f"{settings.prefix}.demo", body, properties)
        with contextlib.suppress(BrokerError):
            await channel.call("basic_qos", prefetch_count=1)  # answered when the message is in the queue
        await connection.close()
