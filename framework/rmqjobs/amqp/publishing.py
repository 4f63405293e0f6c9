"""Publishes with confirms, over one connection that is opened again when it is lost: both publishers and the worker use it.

A message counts as published when the broker has confirmed it. Until then it stays here: if the connection is lost, it is sent
again on the next one (so a job may arrive twice, with the same id); at its deadline, the wait ends with a typed error.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pika import BasicProperties
from pika import exceptions as pika_errors

from rmqjobs.amqp.confirms import Confirms
from rmqjobs.amqp.connection import LIVED, PERMANENT, Backoff, Channel, Connection, Prepare, connect
from rmqjobs.errors import (
    BrokerBlocked,
    BrokerError,
    BrokerGone,
    BrokerUnavailable,
    ConfigurationError,
    InvalidJob,
    MessageTooLarge,
    PublishRefused,
    PublishTimeout,
    RmqJobsError,
    Unroutable,
)
from rmqjobs.settings import Broker
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.publishing")

WINDOW = 1000  # unconfirmed messages at once; more gains nothing
USUAL_FRAME = 131_072  # frame_max on both sides, unless configured otherwise; `wire` keeps headers well below
FRAME_OVERHEAD = 64
_CHECK_EVERY = 0.1
_LOOK_AGAIN = 0.005
PERSISTENT = 2

Settled = Callable[[RmqJobsError | None], None]


@dataclass(slots=True, eq=False)
class _Entry:
    message: Message
    deadline: float
    settled: Settled


class PublishLink:
    """A publishing connection that keeps itself up from `open` to `close`.

    Args:
        where: Gives the broker; called for each connection, because its password may change.
        name: Connection name.
        heartbeat: AMQP heartbeat.
        prepare: Runs on each new connection before anything is published on it.
        beside: Runs as long as the link is open, with the link as its argument.
        on_published: Called with each message that the broker has confirmed.
    """

    def __init__(
        self,
        where: Callable[[], Broker],
        *,
        name: str,
        heartbeat: timedelta,
        prepare: Prepare | None = None,
        beside: Callable[[PublishLink], Coroutine[Any, Any, None]] | None = None,
        on_published: Callable[[Message], None] | None = None,
    ) -> None:
        self._on_published = on_published
        self._where, self._name, self._heartbeat, self._prepare, self._beside = where, name, heartbeat, prepare, beside
        self._broker: Broker | None = None
        self._waiting: deque[_Entry] = deque()
        self._unconfirmed: dict[int, _Entry] = {}  # by delivery tag, in order
        self._returned: dict[tuple[str, str, str | None], str] = {}
        self._window = WINDOW
        self._suspects = 0  # messages still to be sent singly
        self._next_tag = 1
        self._confirms = Confirms()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._limit = sys.maxsize  # bytes of a body that the broker accepts, as far as is known
        self._frame = USUAL_FRAME  # bytes that all headers of a message may have
        self._trouble: RmqJobsError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._checker: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Starts connecting in the background; harmless when it is open. On another event loop it starts afresh."""
        self._leave_ended_loop()
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep_connected(), name="rmqjobs-publishing")]
            if self._beside is not None:
                self._tasks.append(asyncio.create_task(self._beside(self)))

    async def publish(self, message: Message, timeout: timedelta) -> None:
        """Publishes one message and waits for its confirm.

        Raises:
            PublishError: It is not known to be in RabbitMQ.
            BrokerError: The broker refuses us for good.
        """
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settled(error: RmqJobsError | None) -> None:
            if confirmed.done():
                return
            if error is None:
                confirmed.set_result(None)
            else:
                confirmed.set_exception(error)

        self.send(message, timeout, settled)
        await confirmed

    def send(self, message: Message, timeout: timedelta, settled: Settled) -> None:
        """Publishes one message without waiting; `settled` is called once, with None or the error."""
        self.open()
        loop = asyncio.get_running_loop()
        self._waiting.append(_Entry(message, loop.time() + timeout.total_seconds(), settled))
        self._pump()
        if self._checker is None:
            self._checker = loop.call_later(_CHECK_EVERY, self._check_deadlines)

    @property
    def connection(self) -> Connection | None:
        """The present connection, which may be closing."""
        return self._connection

    @property
    def is_connected(self) -> bool:
        """Whether there is a channel to publish on."""
        return self._channel is not None and self._channel.is_open

    @property
    def takes_messages(self) -> bool:
        """Whether a message could be published now: we are connected, and the broker is not blocking."""
        return self.is_connected and self._connection is not None and self._connection.blocked is None

    @property
    def outstanding(self) -> int:
        """How many messages wait for the broker."""
        return len(self._waiting) + len(self._unconfirmed)

    async def until_connected(self, limit: timedelta) -> None:
        """Waits until there is a channel to publish on, no longer than the limit."""
        end = asyncio.get_running_loop().time() + limit.total_seconds()
        while not self.is_connected and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK_AGAIN)

    async def close(self) -> None:
        """Waits for the outstanding messages, each until its deadline, then closes."""
        self._leave_ended_loop()
        while self.outstanding:
            await asyncio.sleep(_LOOK_AGAIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._checker is not None:
            self._checker.cancel()
        if self._connection is not None:
            await self._connection.close()

    # -- the connection

    def _leave_ended_loop(self) -> None:
        """Drops what belongs to an event loop that has ended, as in a program that calls `asyncio.run` twice."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._connection is not None:
            self._connection.abandon()
        self._loop, self._tasks, self._checker, self._connection = loop, [], None, None
        self._forget_channel()
        self._waiting.clear()  # whoever waited for these has ended with their loop

    async def _keep_connected(self) -> None:
        """Connects, waits until the connection is lost, and connects again, whatever goes wrong."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._connect()
                self._trouble = await self._until_lost()
                log.warning("publishing connection lost", extra={"broker": str(self._broker), "because": str(self._trouble)})
                if not isinstance(self._trouble, BrokerUnavailable):
                    self._blame(self._trouble)
            except RmqJobsError as error:
                self._trouble = error
                log.warning("cannot publish", extra={"broker": str(self._broker), "because": str(error)})
                if isinstance(error, (*PERMANENT, ConfigurationError)):
                    self._fail_all(error)  # waiting does not make a wrong password right
            except Exception:
                log.exception("publishing failed unexpectedly; connecting again")
            self._forget_channel()
            if self._connection is not None:  # it may still be open, when only declaring on it failed
                await self._connection.close()
                self._connection = None
            if loop.time() - started > LIVED:
                backoff.reset()
            await asyncio.sleep(backoff.delay())

    async def _connect(self) -> None:
        self._broker = self._where()
        self._connection = await connect(self._broker, name=self._name, heartbeat=self._heartbeat, prepare=self._prepare)
        await self._open_channel(self._connection)

    async def _open_channel(self, connection: Connection) -> None:
        channel = await connection.channel()
        await channel.confirm(self._on_confirm)
        channel.raw.add_on_return_callback(self._on_return)
        self._next_tag, self._confirms = 1, Confirms()
        self._frame = connection.raw.params.frame_max
        self._channel = channel
        self._pump()

    async def _until_lost(self) -> BrokerError:
        """Waits for the end of the connection; replaces a channel that the broker closed because of one message."""
        while True:
            connection, channel = self._connection, self._channel
            if connection is None or channel is None:
                return BrokerUnavailable("the publishing channel is gone")
            await asyncio.wait((connection.closed, channel.closed), return_when=asyncio.FIRST_COMPLETED)
            if connection.closed.done() or not connection.raw.is_open:
                return await connection.closed
            self._blame(channel.closed.result())
            if self._prepare is not None:
                await self._prepare(connection)
            await self._open_channel(connection)

    def _forget_channel(self) -> None:
        """Puts messages that were sent but not confirmed back at the front of those that wait, in order."""
        self._channel = None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._returned.clear()

    def _blame(self, error: BrokerError) -> None:
        """The broker closed the channel because of one unconfirmed message: they are sent singly to find out which."""
        self._trouble = error
        if isinstance(error, MessageTooLarge):
            self._limit = error.limit  # from here on nothing of that size is sent
        if len(self._unconfirmed) == 1:
            _, culprit = self._unconfirmed.popitem()
            self._window = WINDOW
            culprit.settled(self._refusal(culprit.message, error))
        elif self._unconfirmed:
            self._window, self._suspects = 1, len(self._unconfirmed)
        self._forget_channel()

    @staticmethod
    def _refusal(message: Message, error: BrokerError) -> RmqJobsError:
        if isinstance(error, MessageTooLarge):
            return InvalidJob(f"{message.type or message.routing_key}: {error}")
        return error if isinstance(error, PERMANENT) else PublishRefused(f"the broker refuses {message.routing_key!r}: {error}")

    # -- messages

    def _pump(self) -> None:
        """Sends as many waiting messages as the window allows."""
        while self._waiting and len(self._unconfirmed) < self._window and self.takes_messages:
            if not self._send(self._waiting.popleft()):
                return

    def _send(self, entry: _Entry) -> bool:
        """Returns whether sending may go on."""
        message, channel = entry.message, self._channel
        if channel is None:
            self._waiting.appendleft(entry)
            return False
        try:
            properties = properties_of(message)
            self._check_size(message, properties)
            channel.raw.basic_publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError):
            self._waiting.appendleft(entry)  # it is closing; the keeper opens another
            return False
        except InvalidJob as error:
            entry.settled(error)
            return True
        except Exception as error:  # noqa: BLE001 - a value AMQP cannot carry is that message's fault alone
            entry.settled(InvalidJob(f"{message.type}: AMQP cannot carry this message: {error or type(error).__name__}"))
            return True
        self._unconfirmed[self._next_tag] = entry
        self._next_tag += 1
        return True

    def _check_size(self, message: Message, properties: BasicProperties) -> None:
        """Refuses a message over which the broker would close the channel, or the connection, with all that is under way."""
        if len(message.body) > self._limit:
            raise InvalidJob(f"{message.type or message.routing_key}: {MessageTooLarge(len(message.body), self._limit)}")
        if message.headers and self._frame < USUAL_FRAME:
            size = sum(map(len, properties.encode())) + FRAME_OVERHEAD
            if size > self._frame:
                raise InvalidJob(
                    f"{message.type or message.routing_key}: its headers have {size:,} bytes, and this broker accepts"
                    f" {self._frame:,} (frame_max in rabbitmq.conf)"
                )

    def _on_confirm(self, frame: Any) -> None:
        refused = frame.method.NAME == "Basic.Nack"
        for number in self._confirms.tags(frame.method):
            entry = self._unconfirmed.pop(number, None)
            if entry is not None:
                error = self._verdict(entry.message, refused=refused)
                entry.settled(error)
                if error is None and self._on_published is not None:
                    self._on_published(entry.message)
        if self._window == 1:
            self._suspects -= 1
            self._window = 1 if self._suspects > 0 else WINDOW
        self._pump()

    def _verdict(self, message: Message, *, refused: bool) -> RmqJobsError | None:
        if self._returned:
            why = self._returned.pop((message.exchange, message.routing_key, message.message_id), None)
            if why is not None:
                return Unroutable(
                    f"no queue took {message.routing_key!r} from exchange {message.exchange!r} ({why})."
                    " Repair the topology with: rmqjobs topology apply"
                )
        if refused:
            return PublishRefused(f"the broker refused {message.routing_key!r}: its queue is full, or cannot store it now")
        return None

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned[method.exchange, method.routing_key, properties.message_id] = str(method.reply_text)

    # -- deadlines

    def _check_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [entry for entry in self._waiting if entry.deadline <= now]
        if late:
            self._waiting = deque(entry for entry in self._waiting if entry.deadline > now)
        overdue = [tag for tag, entry in self._unconfirmed.items() if entry.deadline <= now]
        late += [self._unconfirmed.pop(tag) for tag in overdue]
        for entry in late:
            entry.settled(self._lateness(entry.message))
        self._pump()  # unblocked connections are noticed here
        self._checker = loop.call_later(_CHECK_EVERY, self._check_deadlines) if self.outstanding else None

    def _lateness(self, message: Message) -> RmqJobsError:
        if not self.is_connected:
            return BrokerGone(f"{message.type or message.exchange} was not published: {self._trouble or 'still connecting'}")
        if self._connection is not None and self._connection.blocked is not None:
            return BrokerBlocked(
                f"{message.type or message.exchange} was not published: the broker accepts no messages"
                f" ({self._connection.blocked}). See its alarms with: rabbitmq-diagnostics alarms"
            )
        return PublishTimeout(
            f"{message.type or message.exchange} was not confirmed in time: it may or may not be queued."
            " Publishing it again with the same job_id is safe"
        )

    def _fail_all(self, error: RmqJobsError) -> None:
        entries = [*self._unconfirmed.values(), *self._waiting]
        self._unconfirmed.clear()
        self._waiting.clear()
        for entry in entries:
            entry.settled(error)


def properties_of(message: Message) -> BasicProperties:
    """A message's properties as pika takes them."""
    return BasicProperties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=message.headers,
        delivery_mode=PERSISTENT,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
    )
