"""Publishes on one channel, with confirms: messages lost with the channel are never sent again on another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pika import exceptions as pika_errors

from rmqjobs.amqp.confirms import Confirms
from rmqjobs.amqp.connection import Channel, Connection, resolve
from rmqjobs.amqp.publishing import properties_of
from rmqjobs.errors import BrokerError, BrokerUnavailable, InvalidJob, PublishRefused, RmqJobsError, Unroutable
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.outlet")

SAY_EVERY = 5.0  # seconds between warnings that nothing is confirmed


@dataclass(slots=True)
class _Batch:
    """Messages published together; failures by their index in it."""

    open: int
    confirmed: asyncio.Future[None]
    failures: dict[int, RmqJobsError] = field(default_factory=dict)

    def settle(self, place: int, error: RmqJobsError | None) -> None:
        if error is not None:
            self.failures[place] = error
        self.open -= 1
        if not self.open:
            resolve(self.confirmed, None)


class Outlet:
    """One channel with confirms; `lost` is resolved with the reason when it is gone."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._connection, self.channel = connection, channel
        self._next_tag, self._confirms = 1, Confirms()
        self._unconfirmed: dict[int, tuple[_Batch, int, Message]] = {}
        self._returned: set[tuple[str, str, str | None]] = set()
        channel.closed.add_done_callback(lambda closed: resolve(self.lost, closed.result()))

    async def open(self) -> None:
        """Asks for confirms."""
        await self.channel.confirm(self._on_confirm)
        self.channel.raw.add_on_return_callback(self._on_return)

    async def publish(self, messages: Sequence[Message]) -> dict[int, RmqJobsError]:
        """Publishes all, pipelined, and waits for their confirms; returns failures by index.

        Raises:
            BrokerError: The channel was lost: some may be published, some not.
        """
        if self.lost.done():
            raise self.lost.result()
        if not messages:
            return {}
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

    def _send(self, message: Message, batch: _Batch, place: int) -> None:
        try:
            self.channel.raw.basic_publish(
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
            return Unroutable(f"no queue took {message.routing_key!r}. Repair the topology with: rmqjobs topology apply")
        return PublishRefused(f"the broker refused {message.routing_key!r}: its queue is full") if refused else None

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned.add((method.exchange, method.routing_key, properties.message_id))
