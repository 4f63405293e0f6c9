"""Holds a queue's messages unacknowledged, and publishes on the same channel: one cannot outlive the other.

That makes it a fence. When the broker takes the messages away, by closing the channel or the connection, we also lose the
right to publish here; nothing is ever sent again on another connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rmqjobs.amqp.claims import release
from rmqjobs.amqp.connection import CLOSE_TIMEOUT, Channel, Connection, Prepare, connect, connection_name, resolve
from rmqjobs.amqp.counting import count
from rmqjobs.amqp.outlet import Outlet
from rmqjobs.errors import BrokerError
from rmqjobs.settings import Settings
from rmqjobs.topology import Names

log = logging.getLogger("rmqjobs.holding")

MOST_HELD = 65_535  # without a prefetch a quorum queue stops at 2,000 unacknowledged


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message of the queue, unacknowledged."""

    tag: int
    body: bytes
    routing_key: str
    properties: Any


class Holding:
    """One life of such a channel: `publish` and `lost` are those of its `Outlet`.

    Args:
        connection: The channel's connection.
        channel: The channel that does both.
        end: Closes what `close` has to: the channel, or the whole connection.
    """

    def __init__(self, connection: Connection, channel: Channel, end: Callable[[], Awaitable[None]]) -> None:
        self.connection, self._channel, self._end = connection, channel, end
        self._outlet = Outlet(connection, channel)
        self.inbox = asyncio.Queue[HeldMessage]()
        self._arrived = asyncio.Event()
        self.publish, self.lost = self._outlet.publish, self._outlet.lost

    @classmethod
    async def open(cls, settings: Settings, queue: str, *, role: str, prepare: Prepare) -> Self:
        """Connects, prepares the connection, and asks for the queue; closing it closes the connection.

        Raises:
            BrokerError: The broker is not there, or refuses us.
        """
        name = connection_name(role)
        # RabbitMQ gives up a silent connection after two to three of its heartbeats: that is within one of ours.
        heartbeat = settings.heartbeat / 3
        connection = await connect(settings.broker, name=name, heartbeat=heartbeat, prepare=prepare)
        try:
            return await cls.on(connection, queue, tag=name, end=connection.close)
        except BaseException:
            await connection.close()
            raise

    @classmethod
    async def on(
        cls,
        connection: Connection,
        queue: str,
        *,
        most: int = MOST_HELD,
        tag: str | None = None,
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> Self:
        """Asks for the queue on a channel of this connection.

        Args:
            connection: The connection.
            queue: Its full name.
            most: How many messages it holds at once.
            tag: The consumer's.
            end: What `close` does; it closes the channel otherwise.
        """
        channel = await connection.channel()
        holding = cls(connection, channel, end or channel.close)
        await holding._outlet.open()
        await channel.call("basic_qos", prefetch_count=most)
        channel.raw.add_on_cancel_callback(holding._on_cancel)
        await channel.call("basic_consume", queue=queue, on_message_callback=holding._on_message, consumer_tag=tag)
        return holding

    async def arrival(self) -> None:
        """Returns when a message is in the inbox."""
        if self.inbox.empty():
            self._arrived.clear()
            await self._arrived.wait()

    async def is_there(self, queue: str) -> bool:
        """Whether a queue exists; a direct reply-to name exists as long as somebody waits there."""
        channel = await self.connection.channel()
        try:
            await channel.call("queue_declare", queue=queue, passive=True)
        except BrokerError:
            return False
        await channel.close()
        return True

    async def is_passed_over(self, queue: str) -> bool:
        """Whether messages wait in the queue and it has no active consumer, although we have asked to be one.

        Raises:
            BrokerError: The queue is gone.
        """
        channel = await self.connection.channel()
        found = await count(channel, queue)
        await channel.close()
        return bool(found.messages) and not found.consumers

    async def release(self, names: Names, claims: Iterable[str]) -> None:
        """Ends claims, on a channel of its own."""
        await release(self.connection, names, claims)

    def ack(self, tags: Sequence[int]) -> None:
        """Acknowledges; has no effect when the channel is lost."""
        for tag in tags:
            if self._channel.is_open:
                self._channel.raw.basic_ack(tag)

    async def close(self) -> None:
        """Waits until acknowledgements have arrived, and lets go: what is held goes back to the queue, in order."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):  # a blocked broker answers nothing
                await self._channel.call("basic_qos", prefetch_count=1)  # after any answered call, earlier acks have arrived
        except (BrokerError, TimeoutError) as error:
            log.debug("channel was lost before it was closed", extra={"because": str(error)})
        await self._end()

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.inbox.put_nowait(HeldMessage(method.delivery_tag, body, method.routing_key, properties))
        self._arrived.set()

    def _on_cancel(self, _frame: Any) -> None:
        resolve(self.lost, BrokerError("the broker took the queue away from this consumer"))
