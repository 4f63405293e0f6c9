"""Reads streams, on aio-pika: following the journal is not on the hot path."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
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
            # A stream may never be silent: records that come within a moment after its end at the call still count.
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
