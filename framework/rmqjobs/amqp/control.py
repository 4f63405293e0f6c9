"""The control plane on aio-pika: reviews of dead-letter queues and readers of the journal. Not the hot path."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq import exceptions as aiormq_errors
from pamqp.commands import Basic
from yarl import URL

from rmqjobs.amqp import tables
from rmqjobs.amqp.translating import translate
from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    PublishRefused,
    ReviewInProgress,
    TlsFailed,
    Unroutable,
    VhostNotFound,
)
from rmqjobs.settings import Broker, Endpoint, Settings
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.control")

tables.correct_pamqp()

CONNECT_TIMEOUT = 5.0
MOST_HELD = 65_535
_IDLE = 1.0
_TURN = 10.0  # seconds a review waits for the one before it


@dataclass(slots=True)
class _Properties:
    """A received message's properties, as `wire` reads them."""

    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any] | None
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None
    timestamp: int | None
    type: str | None
    app_id: str | None


@dataclass(slots=True, eq=False)
class Held:
    """A message that a review holds: unacknowledged, so that it goes back by itself."""

    body: bytes
    routing_key: str
    properties: _Properties
    raw: AbstractIncomingMessage
    removed: bool = False

    async def remove(self) -> None:
        """Takes it out of the queue for good; only after what replaces it is confirmed."""
        await self.raw.ack()
        self.removed = True


class Desk:
    """A connection of an operator: looks at queues, holds messages, publishes with confirms."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._publishing: AbstractChannel | None = None

    async def depth(self, queue: str) -> int | None:
        """Ready messages in a queue, or None when it does not exist."""
        counts = await self._counts(queue)
        return None if counts is None else counts[0]

    @asynccontextmanager
    async def hold(self, queue: str, *, most: int = MOST_HELD) -> AsyncIterator[AsyncIterator[Held]]:
        """Every message that is in the queue now, in order; those not removed go back in their order.

        Args:
            queue: Its full name.
            most: So many are held at once; whoever needs few saves memory by saying so.

        Raises:
            ReviewInProgress: Another review does not end.
        """
        await self._await_turn(queue)
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            yield self._all_of(channel, queue, min(most, MOST_HELD))
        finally:
            await channel.close()

    async def publish(self, message: Message) -> None:
        """Publishes and waits for the confirm.

        Raises:
            Unroutable, PublishRefused: It is not in a queue.
        """
        if self._publishing is None:
            self._publishing = await self._connection.channel(publisher_confirms=True, on_return_raises=False)
        properties = Basic.Properties(
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(message.headers) if message.headers else None,
            delivery_mode=2,
            priority=message.priority,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            message_id=message.message_id,
            timestamp=None if message.timestamp is None else datetime.fromtimestamp(message.timestamp, UTC),
            message_type=message.type,
            app_id=message.app_id,
        )
        underlay = await self._publishing.get_underlay_channel()
        try:
            answer = await underlay.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=properties,
                mandatory=True,
            )
        except aiormq_errors.DeliveryError as error:
            raise PublishRefused(f"the broker refused {message.routing_key!r}: {error}") from None
        if not isinstance(answer, Basic.Ack):
            raise Unroutable(f"no queue took {message.routing_key!r}. Mend the topology with: rmqjobs topology apply")

    async def _counts(self, queue: str) -> tuple[int, int] | None:
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            raw = await channel.get_underlay_channel()
            answer = await raw.queue_declare(queue, passive=True)
        except aiormq_errors.ChannelNotFoundEntity:
            return None
        else:
            return answer.message_count or 0, answer.consumer_count or 0
        finally:
            await channel.close()

    async def _await_turn(self, queue: str) -> None:
        for _ in range(int(_TURN / 0.5)):
            counts = await self._counts(queue)
            if counts is None or counts[1] == 0:
                return
            await asyncio.sleep(0.5)
        raise ReviewInProgress(f"another review holds {queue!r} for over {_TURN:g} s. End it, then try again")

    async def _all_of(self, channel: AbstractChannel, queue: str, most: int) -> AsyncIterator[Held]:
        count, _ = await self._counts(queue) or (0, 0)
        if not count:
            return
        # Without a prefetch a quorum queue stops at 2,000; the largest there is is that of a 16-bit number.
        await channel.set_qos(prefetch_count=most)
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        source = await channel.get_queue(queue, ensure=False)
        await source.consume(arrived.put)
        kept = 0
        for _ in range(count):
            if kept == most:
                log.warning(
                    "looked at the first %s of %s messages in %s only: act on these, then look again", most, count, queue
                )
                return
            try:
                async with asyncio.timeout(_TURN):
                    message = await arrived.get()
            except TimeoutError:
                raise ReviewInProgress(f"another review took {queue!r}. Try again") from None
            held = _held(message)
            yield held
            kept += not held.removed


@asynccontextmanager
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """An operator's connection.

    Raises:
        BrokerError: There is none to be had.
    """
    connection = await _connect(settings)
    try:
        yield Desk(connection)
    except (aiormq_errors.AMQPError, aio_pika.exceptions.AMQPException) as error:
        raise translate(error) from error
    finally:
        await connection.close()


async def read_stream(settings: Settings, stream: str, *, start: str, stop_at_end: bool) -> AsyncIterator[tuple[bytes, str]]:
    """Bodies and routing keys of a stream's messages."""
    connection = await _connect(settings)
    try:
        end = await _last_offset(connection, stream) if stop_at_end else None
        arrived, clock = await _consume_stream(connection, stream, _offset(start)), asyncio.get_running_loop().time
        latest = math.inf
        while True:
            try:
                async with asyncio.timeout_at(min(clock() + _IDLE, latest) if stop_at_end else None):
                    message = await arrived.get()
            except TimeoutError:
                return
            await message.ack()
            yield message.body, message.routing_key or ""
            # A stream may never be silent: what comes within a moment of its end at the call still counts.
            if end is not None and _offset_of(message) >= end:
                latest = min(latest, clock() + _IDLE)
    except aiormq_errors.ChannelNotFoundEntity:
        raise BrokerError(f"there is no stream {stream!r} yet. Create it with: rmqjobs topology apply") from None
    except aiormq_errors.AMQPError as error:
        raise translate(error) from error
    finally:
        await connection.close()


async def _consume_stream(connection: AbstractConnection, stream: str, offset: Any) -> asyncio.Queue[AbstractIncomingMessage]:
    channel = await connection.channel(publisher_confirms=False)
    await channel.set_qos(prefetch_count=100)  # a stream consumer must have a prefetch
    queue = await channel.get_queue(stream, ensure=True)
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(arrived.put, arguments={"x-stream-offset": offset})
    return arrived


async def _last_offset(connection: AbstractConnection, stream: str) -> int | None:
    """Offset of the first message of the last chunk; None when the stream is empty."""
    arrived = await _consume_stream(connection, stream, "last")
    try:
        async with asyncio.timeout(_IDLE):
            message = await arrived.get()
    except TimeoutError:
        return None
    await message.channel.close()
    return _offset_of(message)


def _offset_of(message: AbstractIncomingMessage) -> int:
    return int(message.headers.get("x-stream-offset", 0))  # type: ignore[arg-type]


def _offset(start: str) -> Any:
    if start in ("first", "next", "last"):
        return start
    if start.isdigit() and int(start) < 2**63:
        return int(start)
    try:
        return datetime.fromisoformat(start).astimezone(UTC)
    except ValueError:
        raise ConfigurationError(
            "--from", f"{start!r} is no place in the journal", "Use first, next, an offset or an ISO 8601 time"
        ) from None


def _held(message: AbstractIncomingMessage) -> Held:
    properties = message.properties
    timestamp = properties.timestamp
    return Held(
        body=message.body,
        routing_key=message.routing_key or "",
        properties=_Properties(
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            headers=dict(properties.headers or {}),
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            message_id=properties.message_id,
            timestamp=int(timestamp.timestamp()) if isinstance(timestamp, datetime) else None,
            type=properties.message_type,
            app_id=properties.app_id,
        ),
        raw=message,
    )


async def _connect(settings: Settings) -> AbstractConnection:
    broker, errors = settings.broker, []
    for endpoint in broker.endpoints:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await aio_pika.connect(_url(broker, endpoint, settings), ssl_context=_tls_context(broker))
        except (aiormq_errors.AMQPError, OSError, TimeoutError) as error:
            errors.append(_opening_error(broker, endpoint, error))
    raise next((error for error in errors if not isinstance(error, BrokerUnavailable)), errors[-1])


def _url(broker: Broker, endpoint: Endpoint, settings: Settings) -> URL:
    return URL.build(
        scheme="amqps" if broker.tls else "amqp",
        user=broker.user,
        password=broker.password,
        host=endpoint.host,
        port=endpoint.port,
        path=f"/{'' if broker.vhost == '/' else broker.vhost}",
        query={"heartbeat": str(int(settings.heartbeat.total_seconds())), "name": "rmqjobs-operator"},
    )


def _tls_context(broker: Broker) -> ssl.SSLContext | None:
    return broker.tls.context() if broker.tls else None


def _opening_error(broker: Broker, endpoint: Endpoint, error: BaseException) -> BrokerError:
    text = str(error) or type(error).__name__
    if isinstance(error, aiormq_errors.ProbableAuthenticationError) or "ACCESS_REFUSED" in text:
        return AuthenticationFailed(endpoint, broker.user, broker.source)
    if "vhost" in text or "Connection.OpenOk" in text:  # the only thing a broker refuses at this point
        return VhostNotFound(endpoint, broker.vhost, broker.user)
    if isinstance(error, ssl.SSLError) or "SSL" in text:
        return TlsFailed(endpoint, text)
    if "bytes expected" in text:  # it hung up on our greeting
        return TlsFailed(endpoint, "it does not speak plain AMQP; perhaps it expects TLS")
    return BrokerUnavailable.at(endpoint, text)
