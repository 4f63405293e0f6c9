"""Consumes from work queues, and always compares the expected consumers with the actual ones.

It recovers from a lost connection, a channel that the broker closed and a consumer that the broker cancelled. Each
subscription has a channel of its own; a `Lease` is one life of that channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from rmqjobs.amqp.connection import LIVED, Backoff, Channel, Connection, Prepare, connect, resolve
from rmqjobs.amqp.leases import Delivery, Lease, Subscription
from rmqjobs.errors import BrokerError, RmqJobsError
from rmqjobs.settings import Broker

log = logging.getLogger("rmqjobs.consuming")

CHECK_EVERY = 10.0  # seconds between checks of a consumer


class _Consumer:
    """Consumes from one queue on one channel: with one consumer, and at times with a second one that fetches ahead.

    The prefetch of a consumer cannot be changed, but a second one has a prefetch of its own.
    """

    def __init__(
        self, connection: Connection, channel: Channel, lease: Lease, name: str, on_delivery: Callable[[Delivery], None]
    ) -> None:
        self._channel, self.lease = channel, lease
        self._on_message = _receiver(connection, lease, on_delivery)
        self._tag = f"{name}:{lease.subscription.queue}"
        self._tags: list[str] = []
        self._main = 0  # which of them is not there to fetch ahead
        self._stopping = False
        # pika returns what still arrives for a cancelled consumer: the lease must know that those tags are settled.
        channel.raw.basic_reject = self._reject

    def start(self) -> None:
        """Starts a consumer, with the channel's prefetch as it is now."""
        # Each consumer has a tag of its own: that of a cancelled one cannot be used again.
        tag = f"{self._tag}:{len(self._tags)}" if self._tags else self._tag
        subscription = self.lease.subscription
        self._channel.raw.basic_consume(
            subscription.name, self._on_message, consumer_tag=tag, arguments=dict(subscription.arguments)
        )
        self._tags.append(tag)

    async def fetch_ahead(self, count: int) -> None:
        """See `ConsumeLink.fetch_ahead`."""
        if self.lease.ahead:
            self.lease.fetches(ahead=0)
            await self._channel.call("basic_cancel", consumer_tag=self._tags[-1])
        if count:
            await self._channel.call("basic_qos", prefetch_count=count)
            if not self._stopping:  # it may have been stopped meanwhile
                self.start()
                self.lease.fetches(ahead=count)

    async def stop(self) -> None:
        """Stops consuming; what was delivered stays ours."""
        if self._stopping:
            return
        self._stopping = True
        await self.fetch_ahead(0)
        await self._channel.call("basic_cancel", consumer_tag=self._tags[self._main])

    async def resume(self) -> None:
        """Consumes again after `stop`."""
        self._stopping = False
        await self._channel.call("basic_qos", prefetch_count=self.lease.subscription.prefetch)
        self._main = len(self._tags)
        self.start()

    async def flush(self) -> None:
        """Sends the last acknowledgements and waits until they have arrived."""
        self.lease.flush()
        # The close can overtake acks; after one answered call on the channel they have arrived.
        await self._channel.call("queue_declare", queue=self.lease.subscription.name, passive=True)

    def _reject(self, tag: int, requeue: bool = True) -> None:  # noqa: ARG002 - pika's signature
        self.lease.taken += 1
        self.lease.give_back(tag)


def _receiver(
    connection: Connection, lease: Lease, on_delivery: Callable[[Delivery], None]
) -> Callable[[Any, Any, Any, bytes], None]:
    """The function that pika calls with each message."""
    queue = lease.subscription.queue

    def receive(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if connection.is_stale:  # it belongs to another worker by now
            connection.cut("this process was held up for longer than the broker waits")
            return
        lease.taken += 1
        tag, key = method.delivery_tag, method.routing_key
        on_delivery(Delivery(lease, queue, tag, body, key, method.redelivered, properties))

    return receive


class ConsumeLink:
    """The consuming connection of a worker.

    Args:
        where: Gives the broker; called for each connection, because its password may change.
        name: Connection name.
        heartbeat: AMQP heartbeat.
        subscriptions: What to consume.
        prepare: Runs on each new connection, and again after the broker cancelled a consumer.
        on_delivery: Called with each delivery.
        on_lost: Called when a lease ends with deliveries possibly open.
        plugins: Shown in the connection's properties.
    """

    def __init__(
        self,
        where: Callable[[], Broker],
        *,
        name: str,
        heartbeat: timedelta,
        subscriptions: Sequence[Subscription],
        prepare: Prepare,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[Lease], None],
        plugins: str = "",
    ) -> None:
        self._where, self._name, self._heartbeat, self._plugins = where, name, heartbeat, plugins
        self._broker: Broker | None = None
        self._subscriptions, self._prepare = subscriptions, prepare
        self._on_delivery, self._on_lost = on_delivery, on_lost
        self._consumers: dict[str, _Consumer] = {}
        self._open = {each.queue: asyncio.Event() for each in subscriptions}  # not set: paused
        for each in self._open.values():
            each.set()
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None
        self.connection: Connection | None = None

    @property
    def expected(self) -> int:
        """How many consumers there should be."""
        return 0 if self._stopping else sum(each.is_set() for each in self._open.values())

    @property
    def actual(self) -> int:
        """How many consumers there are."""
        return sum(self._open[queue].is_set() and not each.lease.is_lost for queue, each in self._consumers.items())

    def lease(self, queue: str) -> Lease | None:
        """The present lease of a queue; None when it is lost."""
        consumer = self._consumers.get(queue)
        return None if consumer is None or consumer.lease.is_lost else consumer.lease

    async def open(self) -> None:
        """Starts to consume from all queues.

        Raises:
            BrokerError: The first connection or its declarations failed.
        """
        connection = await self._connect()
        first = asyncio.create_task(self._serve(connection))
        self._keeper = asyncio.create_task(self._keep(first), name="rmqjobs-consuming")
        while self.actual < self.expected and not first.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stops consuming; what was delivered stays ours."""
        self._stopping = True
        for consumer in self._consumers.values():
            if not consumer.lease.is_lost:
                try:
                    await consumer.stop()
                except BrokerError as error:
                    log.info("consumer was gone before it was stopped", extra={"because": str(error)})

    async def pause(self, queue: str) -> None:
        """Takes nothing more from a queue until `resume`, on whatever connection; what was delivered stays ours."""
        self._open[queue].clear()
        consumer = self._consumers.get(queue)
        if consumer is not None and not consumer.lease.is_lost and not self._stopping:
            try:
                await consumer.stop()
            except BrokerError as error:  # the next one waits until it may begin
                log.info("consumer was gone before it was paused", extra={"because": str(error)})

    async def resume(self, queue: str) -> None:
        """Consumes from a paused queue again."""
        if self._open[queue].is_set() or self._stopping:
            return
        self._open[queue].set()
        consumer = self._consumers.get(queue)
        if consumer is not None and not consumer.lease.is_lost:
            try:
                await consumer.resume()
            except BrokerError as error:  # the next one begins at once
                log.info("consumer was gone before it was resumed", extra={"because": str(error)})

    async def fetch_ahead(self, queue: str, count: int) -> None:
        """Holds up to `count` jobs of a queue beyond its prefetch; 0 ends that, and jobs that are held already stay ours.

        Raises:
            BrokerError: The channel is lost.
        """
        consumer = self._consumers.get(queue)
        if consumer is not None and not self._stopping and self._open[queue].is_set():
            await consumer.fetch_ahead(count)

    async def close(self) -> None:
        """Sends the last acknowledgements, waits until they have arrived, and closes."""
        self._stopping = True
        for consumer in self._consumers.values():
            try:
                await consumer.flush()
            except BrokerError as error:
                log.debug("channel was gone before it was closed", extra={"because": str(error)})
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self.connection is not None:
            await self.connection.close()

    def _is_open(self, subscription: Subscription) -> bool:
        return self._open[subscription.queue].is_set()

    async def _connect(self) -> Connection:
        self._broker = self._where()
        self.connection = await connect(
            self._broker, name=self._name, heartbeat=self._heartbeat, plugins=self._plugins, prepare=self._prepare
        )
        return self.connection

    async def _keep(self, served: asyncio.Task[None]) -> None:
        """Serves one connection after the other, with pauses that grow while none of them lasts."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            started = loop.time()
            await served
            if loop.time() - started > LIVED:
                backoff.reset()
            while not self._stopping:
                await asyncio.sleep(backoff.delay())
                try:
                    connection = await self._connect()
                except RmqJobsError as error:
                    log.warning("cannot consume", extra={"broker": str(self._broker), "because": str(error)})
                    continue
                except Exception:
                    log.exception("consuming failed unexpectedly; connecting again")
                    continue
                log.info("consuming again", extra={"broker": str(self._broker)})
                served = asyncio.create_task(self._serve(connection))
                break
            else:
                return

    async def _serve(self, connection: Connection) -> None:
        """Keeps every subscription of this connection until the connection is gone."""
        keepers = [asyncio.create_task(self._subscribe(connection, each)) for each in self._subscriptions]
        try:
            reason = await asyncio.shield(connection.closed)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        if not self._stopping:
            log.warning("consuming connection lost", extra={"broker": str(self._broker), "because": str(reason)})

    async def _subscribe(self, connection: Connection, subscription: Subscription) -> None:
        """Keeps one subscription: consumes, and starts again whenever that ends."""
        backoff = Backoff()
        while not self._stopping:
            try:
                reason = await self._consume(connection, subscription)
                backoff.reset()
            except BrokerError as error:
                reason = error
            if self._stopping or connection.closed.done():
                return
            log.warning("consumer lost", extra={"queue": subscription.name, "because": str(reason)})
            await asyncio.sleep(backoff.delay())
            try:
                await self._prepare(connection)  # the queue itself may be gone
            except BrokerError as error:
                log.error("cannot declare", extra={"queue": subscription.name, "because": str(error)})  # noqa: TRY400

    async def _consume(self, connection: Connection, subscription: Subscription) -> BrokerError:
        """Consumes until the channel closes or the broker cancels; returns why it ended."""
        await self._open[subscription.queue].wait()
        channel = await connection.channel()
        loop = asyncio.get_running_loop()
        lease = Lease(channel, subscription, loop)
        cancelled: asyncio.Future[None] = loop.create_future()
        channel.raw.add_on_cancel_callback(lambda _frame: resolve(cancelled, None))
        consumer = _Consumer(connection, channel, lease, self._name, self._on_delivery)
        await channel.call("basic_qos", prefetch_count=subscription.prefetch)
        if self._stopping:
            await channel.close()
            return BrokerError("the worker is stopping")
        consumer.start()
        self._consumers[subscription.queue] = consumer  # from here on `stop` and `pause` know it
        if not self._is_open(subscription):  # paused while the channel was opened
            await consumer.stop()
        deaf = asyncio.create_task(self._until_deaf(channel, lease))
        try:
            await asyncio.wait((cancelled, channel.closed, deaf), return_when=asyncio.FIRST_COMPLETED)
            reason = channel.closed.result() if channel.closed.done() else BrokerError("the broker gives it no more jobs")
            await channel.close()
        finally:  # also when this task is cancelled, because the whole connection is lost
            deaf.cancel()
            await asyncio.gather(deaf, return_exceptions=True)
            self._on_lost(lease)
        return reason

    async def _until_deaf(self, channel: Channel, lease: Lease) -> None:
        """Returns when jobs wait in the queue and we get none.

        RabbitMQ 3.10 does not tell us that a quorum queue was deleted, nor that its successor does not know our consumer.
        """
        taken, subscription = -1, lease.subscription
        while True:
            await asyncio.sleep(CHECK_EVERY)
            counts = await channel.call("queue_declare", queue=subscription.name, passive=True)  # fails if it is gone
            passed_over = counts.message_count and lease.is_idle and lease.taken == taken and self._is_open(subscription)
            if passed_over and not subscription.takes_turns:
                return
            taken = lease.taken
