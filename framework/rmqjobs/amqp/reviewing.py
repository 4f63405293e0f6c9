"""Looks through a queue without changing it, or takes out messages once they are published elsewhere. Built on pika.

A look holds messages unacknowledged; those it does not take out go back, in order, when its channel closes. RabbitMQ 4 keeps
messages that came back apart, in front of those that nobody has held yet, and adds each one that comes back to the end of that
part. So a look always asks for as many messages as one consumer can hold, however few it wants to see: it then holds all that
ever came back, and returns them in the order they had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rmqjobs.amqp.connection import Connection, connect, connection_name
from rmqjobs.amqp.counting import count
from rmqjobs.amqp.holding import MOST_HELD, HeldMessage, Holding
from rmqjobs.amqp.outlet import Outlet
from rmqjobs.errors import BrokerError, PermissionMissing, ReviewInProgress, RmqJobsError
from rmqjobs.settings import Settings
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.reviewing")

_TURN = 10.0  # seconds a review waits for the one before it
_LOOK_AGAIN = 0.5


class Look:
    """One look through a queue: the messages that were in it when it began, in their order.

    Args:
        holding: Holds the messages.
        queue: Full name of the queue.
        count: How many messages there were.
    """

    def __init__(self, holding: Holding, queue: str, count: int) -> None:
        self._holding, self._queue, self._left = holding, queue, count
        self._kept = 0

    async def messages(self) -> AsyncIterator[HeldMessage]:
        """Each message once, up to as many as one look can hold."""
        while (held := await self._next()) is not None:
            yield held

    async def publish(self, pairs: Sequence[tuple[HeldMessage, Message]]) -> dict[int, RmqJobsError]:
        """Publishes a message for each held one, and takes out those whose message is safe; returns failures by index.

        Raises:
            BrokerError: The look was lost: what it held is back in the queue, and some of it may be published as well.
        """
        failures = await self._holding.publish([message for _, message in pairs])
        done = [held.tag for place, (held, _) in enumerate(pairs) if place not in failures]
        self._holding.ack(done)
        self._kept -= len(done)
        return failures

    async def _next(self) -> HeldMessage | None:
        if not self._left:
            return None
        if self._kept == MOST_HELD:
            hint = "act on these, then look again"
            log.warning("one look cannot hold more", extra={"queue": self._queue, "held": self._kept, "hint": hint})
            self._left = 0
            return None
        if self._holding.inbox.empty():
            await self._arrival()
        self._left -= 1
        self._kept += 1
        return self._holding.inbox.get_nowait()

    async def _arrival(self) -> None:
        arrival = asyncio.create_task(self._holding.arrival())
        await asyncio.wait((arrival, self._holding.lost), timeout=_TURN, return_when=asyncio.FIRST_COMPLETED)
        if self._holding.lost.done():
            arrival.cancel()
            raise self._holding.lost.result()
        if not arrival.done():
            arrival.cancel()
            raise ReviewInProgress(f"another review took {self._queue!r}. Try again")


class Desk:
    """A connection of an operator: looks at queues, holds messages, publishes with confirms."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def depth(self, queue: str) -> int | None:
        """Ready messages in a queue, or None when it does not exist."""
        counts = await self.counts(queue)
        return None if counts is None else counts[0]

    @asynccontextmanager
    async def look(self, queue: str) -> AsyncIterator[Look]:
        """Holds what is in the queue now.

        Args:
            queue: Its full name.

        Raises:
            ReviewInProgress: Another review has not ended in time.
            BrokerError: The connection is lost.
        """
        count = await self._await_turn(queue)
        holding = await Holding.on(self.connection, queue)
        try:
            yield Look(holding, queue, count)
        finally:
            await holding.close()  # what it held goes back

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes and waits for the confirms.

        Raises:
            PublishError: One of them did not get into a queue.
        """
        outlet = Outlet(self.connection, await self.connection.channel())
        await outlet.open()
        failures = await outlet.publish(messages)
        await outlet.channel.close()
        if failures:
            raise next(iter(failures.values()))

    async def _await_turn(self, queue: str) -> int:
        """Waits until nobody else holds messages; returns how many there are."""
        for _ in range(max(int(_TURN / _LOOK_AGAIN), 1)):
            messages, consumers = await self.counts(queue) or (0, 0)
            if not consumers:
                return messages
            await asyncio.sleep(_LOOK_AGAIN)
        raise ReviewInProgress(f"another review has held {queue!r} for over {_TURN:g} s. End it, then try again")

    async def counts(self, queue: str) -> tuple[int, int] | None:
        """Ready messages and consumers of a queue, or None when it does not exist."""
        channel = await self.connection.channel()
        try:
            found = await count(channel, queue)
        except PermissionMissing:
            raise
        except BrokerError:
            if self.connection.closed.done():
                raise
            return None
        await channel.close()
        if not found.certain:
            raise BrokerError(
                f"cannot tell what is in {queue!r}: the queue's leader does not answer, so the broker is overloaded or lacks a"
                " majority of its nodes. Try again, or look with: rmqjobs doctor"
            )
        return found.messages, found.consumers


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """An operator's connection.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    connection = await connect(settings.broker, name=connection_name("operator"), heartbeat=settings.heartbeat)
    try:
        yield Desk(connection)
    finally:
        await connection.close()
