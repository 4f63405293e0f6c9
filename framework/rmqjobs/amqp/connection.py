"""Opens AMQP connections and channels on pika's asyncio adapter, with futures instead of callbacks, and with our errors."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from pika import ConnectionParameters, PlainCredentials, SSLOptions
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.frame import Method
from pika.spec import Basic

from rmqjobs.amqp import tables
from rmqjobs.amqp.translating import opening_error, translate
from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    PermissionMissing,
    TlsFailed,
    TopologyConflict,
    VhostNotFound,
)
from rmqjobs.settings import Broker, Endpoint

tables.correct_pika()

CONNECT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
PULSE_STEPS = 8
LIVED = 5.0  # seconds after which a connection counts as a good one, and the next may be tried at once
# Errors that do not go away by waiting; any other may come from a broker that is just starting.
PERMANENT = (AuthenticationFailed, VhostNotFound, TlsFailed, PermissionMissing, TopologyConflict)

Prepare = Callable[["Connection"], Awaitable[None]]
Confirmed = Callable[[Any], None]
_CONFIRMS = (Basic.Ack, Basic.Nack)


class _Adapter(AsyncioConnection):  # type: ignore[misc]
    """pika's adapter, with one write for all that a turn of the event loop has to send, and a clock for what is read.

    pika itself makes three writes for each message.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._unsent: list[bytes] = []
        self._read_at = time.monotonic()
        self.longest_silence = 0.0
        self.on_confirm: dict[int, Confirmed] = {}  # by channel number
        super().__init__(*arguments, **options)

    def _proto_data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self._read_at)
        self._read_at = now
        super()._proto_data_received(data)

    def _process_callbacks(self, value: Any) -> bool:
        # pika takes dozens of calls to find out that nobody waits for a delivery, and who waits for a confirm.
        if type(value) is not Method:
            return False
        kind = type(value.method)
        if kind is Basic.Deliver:
            return False
        if kind in _CONFIRMS and (confirmed := self.on_confirm.get(value.channel_number)) is not None:
            confirmed(value)
            return True
        return bool(super()._process_callbacks(value))

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        self._unsent.append(data)

    def _adapter_disconnect_stream(self) -> None:
        self._write()
        super()._adapter_disconnect_stream()

    def _write(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            if self._transport is not None:
                self._transport.write(data)


class Channel:
    """A pika channel with awaitable calls; `closed` is resolved with the reason when it is gone.

    A closed channel never comes back, and neither do its delivery tags: open another one.
    """

    def __init__(self, raw: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.raw = raw
        self.closed: asyncio.Future[BrokerError] = loop.create_future()
        raw.add_on_close_callback(self._on_close)

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used now."""
        return bool(self.raw.is_open)

    async def confirm(self, confirmed: Confirmed) -> None:
        """Has the broker confirm what is published here: `confirmed` is called with each frame that does.

        Raises:
            BrokerError: The channel is closed.
        """
        await self.call("confirm_delivery", ack_nack_callback=confirmed)
        self.raw.connection.on_confirm[self.raw.channel_number] = confirmed

    async def call(self, method: str, **arguments: Any) -> Any:
        """Calls an AMQP method and waits for its answer.

        Raises:
            BrokerError: The call closed the channel, or it was closed before.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            getattr(self.raw, method)(callback=lambda frame: resolve(answer, frame.method), **arguments)
        except pika_errors.AMQPError as error:
            raise await self._reason(error) from None
        await asyncio.wait((answer, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise self.closed.result()

    def tell(self, method: str, **arguments: Any) -> None:
        """Calls an AMQP method without an answer; if it fails, that closes the channel, and the next `call` says so."""
        with contextlib.suppress(pika_errors.AMQPError):
            getattr(self.raw, method)(callback=None, **arguments)

    async def close(self) -> None:
        """Closes the channel and waits a moment for that; harmless when it is closed already."""
        if self.raw.is_open:
            self.raw.close()
        await asyncio.wait((self.closed,), timeout=CLOSE_TIMEOUT)

    async def _reason(self, error: Exception) -> BrokerError:
        if self.closed.done():
            return self.closed.result()
        return BrokerUnavailable(f"the channel is closed: {error}")

    def _on_close(self, channel: Any, reason: Exception) -> None:
        channel.connection.on_confirm.pop(channel.channel_number, None)
        if not self.closed.done():
            self.closed.set_result(translate(reason))


class Connection:
    """An open connection; `closed` gets the reason when it is gone, `blocked` says why the broker is not reading."""

    def __init__(self, raw: Any, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.raw, self.endpoint = raw, endpoint
        self.closed: asyncio.Future[BrokerError] = loop.create_future()
        self.blocked: str | None = None
        self._loop = loop
        self._pulse: asyncio.Task[None] | None = None
        self._limit = self._stale_after = math.inf
        raw.add_on_close_callback(self._on_close)
        raw.add_on_connection_blocked_callback(self._on_blocked)
        raw.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def version_text(self) -> str:
        """Version of the broker, as the broker gives it."""
        return str((self.raw.server_properties or {}).get("version", "0.0"))

    @property
    def broker_version(self) -> tuple[int, int]:
        """Major and minor version of the broker."""
        major, minor = self.version_text.split(".")[:2]
        return int(major), int(minor)

    @property
    def cluster_name(self) -> str:
        """What the broker's cluster calls itself."""
        return str((self.raw.server_properties or {}).get("cluster_name", ""))

    async def channel(self) -> Channel:
        """A new channel."""
        opened: asyncio.Future[Any] = self._loop.create_future()
        try:
            self.raw.channel(on_open_callback=lambda raw: resolve(opened, raw))
        except pika_errors.AMQPError as error:
            raise BrokerUnavailable(f"the connection to {self.endpoint} is closed: {error}") from None
        await asyncio.wait((opened, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise self.closed.result()
        return Channel(opened.result(), self._loop)

    async def close(self) -> None:
        """Closes the connection and waits for that; a blocked broker never answers, so we cut the connection after a moment."""
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        if not (self.raw.is_closing or self.raw.is_closed):
            self.raw.close()
        await asyncio.wait((self.closed,), timeout=CLOSE_TIMEOUT)
        if not self.closed.done():
            self.raw._terminate_stream(None)  # noqa: SLF001 - pika has no public way to end a connection without its broker
            resolve(self.closed, BrokerUnavailable(f"{self.endpoint} did not answer the close"))
            await asyncio.sleep(0.01)  # lets the loop close the socket, even if this is the last thing it does

    def cut(self, reason: str) -> None:
        """Ends the connection without waiting for the broker, which does not answer."""
        if not self.closed.done():
            self.raw._terminate_stream(pika_errors.StreamLostError(reason))  # noqa: SLF001 - as above

    def keep_pulse(self, limit: timedelta) -> None:
        """Cuts the connection when nothing arrives for the limit, a heartbeat: the broker sends something twice in that time.

        RabbitMQ gives away the deliveries of a silent connection after two to three heartbeats; by then we have given up.
        """
        self._limit = limit.total_seconds()
        self._stale_after = self._limit * 1.5
        self._pulse = self._loop.create_task(self._feel_pulse(), name="rmqjobs-pulse")

    @property
    def is_stale(self) -> bool:
        """Whether this process stood still and read nothing for so long that RabbitMQ may be about to give its deliveries away.

        The broker sends something twice in a heartbeat, and waits for at least two heartbeats.
        """
        return bool(self.raw.longest_silence > self._stale_after)

    async def _feel_pulse(self) -> None:
        received, silent = self.raw.bytes_received, 0
        while not self.closed.done():
            # In small steps: an event loop that was held up has read nothing, but that is not the broker's silence.
            await asyncio.sleep(self._limit / PULSE_STEPS)
            silent = silent + 1 if self.raw.bytes_received == received else 0
            received = self.raw.bytes_received
            if silent > PULSE_STEPS:
                self.cut(f"nothing has come from the broker for {self._limit:g} s")

    def abandon(self) -> None:
        """Closes the socket of a connection whose event loop has ended: nobody is left to close it properly."""
        with contextlib.suppress(Exception):
            self.raw._transport._sock.close()  # noqa: SLF001 - as above

    def _on_close(self, _connection: Any, reason: Exception) -> None:
        if not self.closed.done():
            self.closed.set_result(translate(reason, self.endpoint))

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = str(frame.method.reason)

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = None


class Backoff:
    """The waits between tries to connect: longer and longer, each shortened at random so that a fleet does not come at once."""

    def __init__(self, first: float = 0.1, cap: float = 2.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def reset(self) -> None:
        """Starts over, after a try that went well."""
        self._next = self._first

    def delay(self) -> float:
        """Seconds to wait now."""
        wait, self._next = self._next, min(self._next * 2, self._cap)
        return wait * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret


async def connect(
    broker: Broker, *, name: str, heartbeat: timedelta, plugins: str = "", prepare: Prepare | None = None
) -> Connection:
    """Opens a connection to the first endpoint that answers, prepares it and keeps its pulse.

    Raises:
        BrokerError: No endpoint answers, and this is the most telling error; or preparing failed, and the connection is closed.
    """
    connection = await _connect(broker, name, heartbeat, plugins)
    try:
        if prepare is not None:
            await prepare(connection)
    except BaseException:
        await connection.close()
        raise
    connection.keep_pulse(heartbeat)
    return connection


async def _connect(broker: Broker, name: str, heartbeat: timedelta, plugins: str) -> Connection:
    errors: list[BrokerError] = []
    for endpoint in broker.endpoints:
        try:
            return await _open(broker, endpoint, name, heartbeat, plugins)
        except BrokerError as error:
            errors.append(error)
    # "wrong password" from one host says more than "connection refused" from its neighbour
    raise next((error for error in errors if not isinstance(error, BrokerUnavailable)), errors[-1])


def resolve(future: asyncio.Future[Any], value: object) -> None:
    """Sets a future's result from a callback that may come late."""
    if not future.done():
        future.set_result(value)


def connection_name(role: str) -> str:
    """`rmqjobs-worker@host:pid`, as the management page shows it."""
    return f"rmqjobs-{role}@{socket.gethostname()}:{os.getpid()}"


async def _open(broker: Broker, endpoint: Endpoint, name: str, heartbeat: timedelta, plugins: str) -> Connection:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not opened.done():
            outcome()

    raw = _Adapter(
        _parameters(broker, endpoint, name, heartbeat, plugins),
        on_open_callback=lambda connection: settle(lambda: opened.set_result(connection)),
        on_open_error_callback=lambda _connection, error: settle(
            lambda: opened.set_exception(opening_error(broker, endpoint, error))
        ),
        custom_ioloop=loop,
    )
    raw.add_on_close_callback(
        lambda _connection, error: settle(lambda: opened.set_exception(opening_error(broker, endpoint, error)))
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT * 2):
            return Connection(await opened, endpoint, loop)
    except TimeoutError:
        _give_up(raw)
        raise BrokerUnavailable(f"{endpoint} accepted the connection, then was silent for {CONNECT_TIMEOUT * 2:g} s") from None
    except asyncio.CancelledError:
        _give_up(raw)
        raise


def _give_up(raw: AsyncioConnection) -> None:
    """Closes a connection that nobody wants any more."""
    if not (raw.is_closing or raw.is_closed):
        raw.close()


def _parameters(broker: Broker, endpoint: Endpoint, name: str, heartbeat: timedelta, plugins: str) -> ConnectionParameters:
    client = {"connection_name": name, "product": "rmqjobs", "version": version("rmqjobs"), "plugins": plugins}
    return ConnectionParameters(
        host=endpoint.host,
        port=endpoint.port,
        virtual_host=broker.vhost,
        credentials=PlainCredentials(broker.user, broker.password),
        heartbeat=max(int(heartbeat.total_seconds()), 1),
        connection_attempts=1,
        socket_timeout=CONNECT_TIMEOUT,
        stack_timeout=CONNECT_TIMEOUT,
        blocked_connection_timeout=None,
        client_properties=client,
        ssl_options=SSLOptions(broker.tls.context(), endpoint.host) if broker.tls else None,
    )
