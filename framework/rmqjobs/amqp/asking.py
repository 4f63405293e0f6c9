"""Asks a service through its queue and waits for the answer, by RabbitMQ's direct reply-to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pika import BasicProperties

from rmqjobs.amqp.connection import Connection, connect, connection_name, resolve
from rmqjobs.amqp.counting import count
from rmqjobs.errors import BrokerError, NoScheduler, PermissionMissing
from rmqjobs.settings import Settings
from rmqjobs.topology import milliseconds

_REPLY_TO = "amq.rabbitmq.reply-to"


async def ask(settings: Settings, queue: str, kind: str, body: bytes, *, by: str, timeout: timedelta) -> bytes:
    """Asks, and returns the body of the answer.

    A question that nobody takes within the timeout expires in the queue; whoever takes it checks whether we still wait.

    Raises:
        NoScheduler: Nobody consumes there, or nobody answers.
        BrokerError: The broker is not there, or refuses us.
    """
    connection = await connect(settings.broker, name=connection_name("operator"), heartbeat=settings.heartbeat)
    try:
        waiting = await _consumers(connection, queue)
        if not waiting:
            raise NoScheduler(f"no scheduler runs under the prefix {settings.prefix!r}. Start one with: rmqjobs scheduler")
        channel = await connection.channel()
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_answer(_channel: Any, _method: Any, _properties: Any, answer: bytes) -> None:
            resolve(answered, answer)

        await channel.call("basic_consume", queue=_REPLY_TO, on_message_callback=on_answer, auto_ack=True)
        expiration = str(milliseconds(timeout))
        properties = BasicProperties(type=kind, reply_to=_REPLY_TO, app_id=by, expiration=expiration, delivery_mode=2)
        channel.raw.basic_publish("", queue, body, properties)
        await asyncio.wait((answered, channel.closed), timeout=timeout.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        if channel.closed.done():
            raise channel.closed.result()
        if not answered.done():
            raise NoScheduler(
                f"the active scheduler has not answered within {timeout.total_seconds():g} s: it is frozen, or the broker"
                " accepts no messages. The request will not be carried out later, unless it had begun. Look at its log, at"
                " `rmqjobs schedules list`, and at `rabbitmq-diagnostics alarms`"
            )
        return answered.result()
    finally:
        await connection.close()


async def _consumers(connection: Connection, queue: str) -> int:
    channel = await connection.channel()
    try:
        found = await count(channel, queue)
    except PermissionMissing:
        raise
    except BrokerError:  # there is no such queue
        return 0
    await channel.close()
    return found.consumers
