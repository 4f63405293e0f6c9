"""Holds a queue as its single active consumer, and publishes on the same channel: one cannot outlive the other.

That is the fence. What the broker takes from this consumer, by closing its channel or connection, it takes together with the
right to publish here; nothing is ever sent again on another connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pika import exceptions as pika_errors

from rmqjobs.amqp.connection import CLOSE_TIMEOUT, Channel, Connection, Prepare, connect, connection_name, resolve
from rmqjobs.amqp.publishing import Confirms, properties_of
from rmqjobs.errors import BrokerError, BrokerUnavailable, InvalidJob, PublishRefused, RmqJobsError, Unroutable
from rmqjobs.settings import Settings
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.scheduler")

MOST_HELD = 65_535  # without a prefetch a quorum queue stops at 2,000 unacknowledged
SAY_EVERY = 5.0  # seconds between complaints that nothing is confirmed


@dataclass(slots=True, eq=False)
class HeldMessage:
    """A message of the queue, unacknowledged."""

    tag: int
    body: bytes
    routing_key: str
    properties: Any


@dataclass(slots=True)
class _Batch:
    """Messages published together; failures by their place in it."""

    open: int
    confirmed: asyncio.Future[None]
    failures: dict[int, RmqJobsError] = field(default_factory=dict)

    def settle(self, place: int, error: RmqJobsError | None) -> None:
        if error is not None:
            self.failures[place] = error
        self.open -= 1
        if not self.open:
            resolve(self.confirmed, None)


class Holding:
    """One life of such a channel; `lost` is resolved with the reason when it is over.

    Args:
        connection: Its own.
        channel: The one that does both.
    """

    def __init__(self, connection: Connection, channel: Channel) -> None:
        loop = asyncio.get_running_loop()
        self.inbox = asyncio.Queue[HeldMessage]()
        self._arrived = asyncio.Event()
        self.lost: asyncio.Future[BrokerError] = loop.create_future()
        self._connection, self._channel = connection, channel
        self._next_tag, self._confirms = 1, Confirms()
        self._unconfirmed: dict[int, tuple[_Batch, int, Message]] = {}
        self._returned: set[tuple[str, str, str | None]] = set()
        channel.closed.add_done_callback(lambda closed: resolve(self.lost, closed.result()))

    @classmethod
    async def open(cls, settings: Settings, queue: str, *, role: str, prepare: Prepare) -> Self:
        """Connects, prepares the connection, and asks for the queue.

        Raises:
            BrokerError: The broker is not there, or refuses us.
        """
        name = connection_name(role)
        # RabbitMQ gives a silent connection up after two to three of its heartbeats: so within one of ours.
        heartbeat = settings.heartbeat / 3
        connection = await connect(settings.broker, name=name, heartbeat=heartbeat, prepare=prepare)
        try:
            channel = await connection.channel()
            holding = cls(connection, channel)
            await channel.call("confirm_delivery", ack_nack_callback=holding._on_confirm)
            await channel.call("basic_qos", prefetch_count=MOST_HELD)
            channel.raw.add_on_return_callback(holding._on_return)
            channel.raw.add_on_cancel_callback(holding._on_cancel)
            await channel.call("basic_consume", queue=queue, on_message_callback=holding._on_message, consumer_tag=name)
        except BaseException:
            await connection.close()
            raise
        return holding

    async def publish(self, messages: Sequence[Message]) -> dict[int, RmqJobsError]:
        """Publishes all, pipelined, and waits for their confirms; failures by place.

        Raises:
            BrokerError: It was lost meanwhile: some may be published, some not.
        """
        if self.lost.done():
            raise self.lost.result()
        batch = _Batch(len(messages), asyncio.get_running_loop().create_future())
        for place, message in enumerate(messages):
            self._send(message, batch, place)
        while not batch.confirmed.done():
            done, _ = await asyncio.wait((batch.confirmed, self.lost), timeout=SAY_EVERY, return_when=asyncio.FIRST_COMPLETED)
            if self.lost.done():
                raise self.lost.result()
            if not done:
                blocked = self._connection.blocked or "no answer"
                log.warning("the broker confirms nothing", extra={"messages": batch.open, "because": blocked})
        return batch.failures

    async def arrival(self) -> None:
        """Returns when a message is in the inbox."""
        if self.inbox.empty():
            self._arrived.clear()
            await self._arrived.wait()

    async def is_there(self, queue: str) -> bool:
        """Whether a queue exists; a name of direct reply-to does as long as somebody waits there."""
        channel = await self._connection.channel()
        try:
            await channel.call("queue_declare", queue=queue, passive=True)
        except BrokerError:
            return False
        await channel.close()
        return True

    def ack(self, tags: Sequence[int]) -> None:
        """Acknowledges; without effect when it is lost."""
        for tag in tags:
            if self._channel.is_open:
                self._channel.raw.basic_ack(tag)

    async def close(self) -> None:
        """Sees acknowledgements through and lets go: the next consumer gets what is held."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):  # a blocked broker answers nothing
                await self._channel.call("basic_qos", prefetch_count=1)  # any answered call: acks before it have arrived
        except (BrokerError, TimeoutError) as error:
            log.debug("was lost before it was closed", extra={"because": str(error)})
        await self._connection.close()

    def _send(self, message: Message, batch: _Batch, place: int) -> None:
        try:
            self._channel.raw.basic_publish(
                message.exchange, message.routing_key, message.body, properties_of(message), mandatory=True
            )
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError) as error:
            resolve(self.lost, BrokerUnavailable(f"the channel is closed: {error}"))
        except Exception as error:  # noqa: BLE001 - a value AMQP cannot carry is that message's fault alone
            batch.settle(place, InvalidJob(f"{message.type}: AMQP cannot carry this message: {error or type(error).__name__}"))
        else:
            self._unconfirmed[self._next_tag] = (batch, place, message)
            self._next_tag += 1

    def _on_confirm(self, frame: Any) -> None:
        refused = frame.method.NAME == "Basic.Nack"
        for number in self._confirms.tags(frame.method):
            entry = self._unconfirmed.pop(number, None)
            if entry is not None:
                batch, place, message = entry
                batch.settle(place, self._failure(message, refused=refused))

    def _failure(self, message: Message, *, refused: bool) -> RmqJobsError | None:
        key = (message.exchange, message.routing_key, message.message_id)
        if key in self._returned:
            self._returned.discard(key)
            return Unroutable(f"no queue took {message.routing_key!r}. Mend the topology with: rmqjobs topology apply")
        return PublishRefused(f"the broker refused {message.routing_key!r}: its queue is full") if refused else None

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned.add((method.exchange, method.routing_key, properties.message_id))

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.inbox.put_nowait(HeldMessage(method.delivery_tag, body, method.routing_key, properties))
        self._arrived.set()

    def _on_cancel(self, _frame: Any) -> None:
        resolve(self.lost, BrokerError("the broker took the scheduler's queue away from this consumer"))
