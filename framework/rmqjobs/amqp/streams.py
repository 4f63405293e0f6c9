"""Reads streams, on aio-pika: following the journal is not on the hot path."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq import exceptions as aiormq_errors
from yarl import URL

from rmqjobs.amqp import tables
from rmqjobs.amqp.translating import translate
from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    TlsFailed,
    VhostNotFound,
)
from rmqjobs.settings import Broker, Endpoint, Settings

tables.correct_pamqp()

CONNECT_TIMEOUT = 5.0
_IDLE = 1.0
_A_MOMENT = 0.05
_LOOK_EVERY = 10.0  # seconds of silence


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message of a stream.

    Args:
        offset: Its place.
        body: Its body.
        source: Its routing key.
    """

    offset: int
    body: bytes
    source: str


async def read_stream(settings: Settings, stream: str, *, start: str, stop_at_end: bool) -> AsyncGenerator[StreamMessage, None]:
    """A stream's messages, from an offset, an ISO 8601 time, `first` or `next` on.

    Raises:
        BrokerError: The stream cannot be read, or not any more: it may be gone, or made anew.
    """
    connection = await _connect(settings)
    try:
        reading = _Reading(connection, stream)
        end = await reading.last_offset() if stop_at_end else None
        await reading.begin(_offset(start))
        clock, latest = asyncio.get_running_loop().time, math.inf
        while True:
            try:
                async with asyncio.timeout_at(min(clock() + _IDLE, latest) if stop_at_end else None):
                    message = await reading.next()
            except TimeoutError:
                return
            yield message
            # A stream may never be silent: records that come within a moment after its end at the call still count.
            if end is not None and message.offset >= end:
                latest = min(latest, clock() + _IDLE)
    except aiormq_errors.ChannelNotFoundEntity:
        raise BrokerError(f"there is no stream {stream!r} yet. Create it with: rmqjobs topology apply") from None
    except aiormq_errors.AMQPError as error:
        raise translate(error) from error
    finally:
        await connection.close()


async def last_offset(settings: Settings, stream: str) -> int | None:
    """Offset of the first message of a stream's last chunk; None when it is empty, or is not there yet.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    connection = await _connect(settings)
    try:
        return await _Reading(connection, stream).last_offset()
    except aiormq_errors.ChannelNotFoundEntity:
        return None
    except aiormq_errors.AMQPError as error:
        raise translate(error) from error
    finally:
        await connection.close()


class _Reading:
    """Reads a stream on one connection, and notices when nothing can come any more."""

    def __init__(self, connection: AbstractConnection, stream: str) -> None:
        self._connection, self._stream = connection, stream
        self._arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self._closed: asyncio.Future[Any] | None = None
        self._latest: AbstractIncomingMessage | None = None

    async def begin(self, offset: Any) -> None:
        """Begins at an offset."""
        channel = await self._consume(offset, self._arrived)
        self._closed = asyncio.ensure_future((await channel.get_underlay_channel()).closing)

    async def next(self) -> StreamMessage:
        """The next message, however long that takes.

        Raises:
            BrokerError: The stream, or the connection, is gone.
        """
        message = self._arrived.get_nowait() if not self._arrived.empty() else await self._arrival()
        await message.ack()
        self._latest = message
        return StreamMessage(_offset_of(message), message.body, message.routing_key or "")

    async def _arrival(self) -> AbstractIncomingMessage:
        """Waits for a message, and looks now and then whether one can still come."""
        arrival = asyncio.ensure_future(self._arrived.get())
        watched = {arrival} if self._closed is None else {arrival, self._closed}
        try:
            while not arrival.done():
                await asyncio.wait(watched, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
                if arrival.done():
                    break
                if self._closed is not None and self._closed.done():
                    raise BrokerUnavailable("the connection that read the stream is lost")
                await self._look(arrival)
            return arrival.result()
        finally:
            arrival.cancel()

    async def last_offset(self) -> int | None:
        """Offset of the first message of the last chunk; None when the stream is empty."""
        first, _ = await self._peek("last")
        return None if first is None else _offset_of(first)

    async def _look(self, arrival: asyncio.Future[AbstractIncomingMessage]) -> None:
        """Looks whether the silence means something: RabbitMQ does not always say when a stream is deleted, or made anew.

        Raises:
            BrokerError: What came last is not there any more, or something has come after it that we did not get.
        """
        if self._latest is None:
            await self._peek("last")  # fails when there is no stream
            return
        first, following = await self._peek(_offset_of(self._latest))
        is_same = first is not None and (_offset_of(first), first.body) == (_offset_of(self._latest), self._latest.body)
        if not arrival.done() and (not is_same or following):
            raise BrokerError(f"stream {self._stream!r} was made anew, or stopped coming")

    async def _peek(self, offset: Any) -> tuple[AbstractIncomingMessage | None, bool]:
        """The first message from an offset on, and whether more come right after it."""
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        channel = await self._consume(offset, arrived)
        try:
            async with asyncio.timeout(_IDLE):
                first = await arrived.get()
        except TimeoutError:
            return None, False
        finally:
            await asyncio.sleep(_A_MOMENT)
            await channel.close()
        return first, not arrived.empty()

    async def _consume(self, offset: Any, arrived: asyncio.Queue[AbstractIncomingMessage]) -> AbstractChannel:
        channel = await self._connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=100)  # a stream consumer must have a prefetch
        queue = await channel.get_queue(self._stream, ensure=True)
        await queue.consume(arrived.put, arguments={"x-stream-offset": offset})
        return channel


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
            "--from", f"{start!r} is not a place in the journal", "Use first, next, an offset or an ISO 8601 time"
        ) from None


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
