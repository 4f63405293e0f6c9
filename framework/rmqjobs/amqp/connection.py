"""Opens AMQP connections and channels on pika's asyncio adapter, with futures instead of callbacks and our errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from pika import ConnectionParameters, PlainCredentials, SSLOptions
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection

from rmqjobs.amqp import tables
from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConsumerTimeout,
    PermissionMissing,
    TlsFailed,
    TopologyConflict,
    VhostNotFound,
)
from rmqjobs.settings import Broker, Endpoint

tables.correct_pika()

ACCESS_REFUSED, PRECONDITION_FAILED, NOT_ALLOWED = 403, 406, 530
CONNECT_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
PULSE_STEPS = 8
LIVED = 5.0  # seconds after which a connection was a good one, and the next may be tried at once
_TIMED_OUT = re.compile(r"acknowledgement .*timed out.*?(\d+) ms")
# What waiting does not mend; everything else may be a broker that is just starting.
PERMANENT = (AuthenticationFailed, VhostNotFound, TlsFailed, PermissionMissing, TopologyConflict)

Prepare = Callable[["Connection"], Awaitable[None]]


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

    async def call(self, method: str, **arguments: Any) -> Any:
        """Calls an AMQP method and waits for its answer.

        Raises:
            BrokerError: The channel was closed over it, or before.
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

    async def close(self) -> None:
        """Closes the channel and waits for it, not for ever; harmless when it is closed already."""
        if self.raw.is_open:
            self.raw.close()
        await asyncio.wait((self.closed,), timeout=CLOSE_TIMEOUT)

    async def _reason(self, error: Exception) -> BrokerError:
        if self.closed.done():
            return self.closed.result()
        return BrokerUnavailable(f"the channel is closed: {error}")

    def _on_close(self, _channel: Any, reason: Exception) -> None:
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
        raw.add_on_close_callback(self._on_close)
        raw.add_on_connection_blocked_callback(self._on_blocked)
        raw.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def broker_version(self) -> tuple[int, int]:
        """Major and minor version of the broker."""
        major, minor = str((self.raw.server_properties or {}).get("version", "0.0")).split(".")[:2]
        return int(major), int(minor)

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
        """Closes the connection and waits for it; a broker that is blocked never answers, so it is cut off after a moment."""
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        if not (self.raw.is_closing or self.raw.is_closed):
            self.raw.close()
        await asyncio.wait((self.closed,), timeout=CLOSE_TIMEOUT)
        if not self.closed.done():
            self.raw._terminate_stream(None)  # noqa: SLF001 - pika has no public way to end a connection without its broker
            resolve(self.closed, BrokerUnavailable(f"{self.endpoint} did not answer the close"))
            await asyncio.sleep(0.01)  # the loop closes the socket, should this be the last thing it does

    def cut(self, reason: str) -> None:
        """Ends the connection without its broker, which does not answer."""
        if not self.closed.done():
            self.raw._terminate_stream(pika_errors.StreamLostError(reason))  # noqa: SLF001 - as above

    def keep_pulse(self, limit: timedelta) -> None:
        """Cuts the connection when the broker answers nothing for about the limit, in either direction of the network.

        RabbitMQ gives the deliveries of a silent connection away after two to three heartbeats; by one we have given up.
        """
        self._pulse = self._loop.create_task(self._beat(limit.total_seconds()), name="rmqjobs-pulse")

    async def _beat(self, limit: float) -> None:
        channel = await self.channel()
        while not channel.closed.done():
            await asyncio.sleep(limit / 4)
            answer: asyncio.Future[None] = self._loop.create_future()
            if not channel.is_open:
                return
            channel.raw.basic_qos(prefetch_count=1, callback=lambda _frame, to=answer: resolve(to, None))  # needs no permission
            silent = 0
            while not answer.done() and not channel.closed.done():
                # In small steps: what an event loop that was held up has not read is not the broker's silence.
                step = limit * 3 / 4 / PULSE_STEPS
                await asyncio.wait((answer, channel.closed), timeout=step, return_when=asyncio.FIRST_COMPLETED)
                silent = 0 if self.blocked else silent + 1
                if silent > PULSE_STEPS:
                    self.cut(f"the broker has answered nothing for {limit:g} s")
                    return

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
    """Waits between tries to connect: longer and longer, each shortened by chance so that a fleet does not come at once."""

    def __init__(self, first: float = 0.1, cap: float = 5.0) -> None:
        self._first, self._cap = first, cap
        self._next = first

    def reset(self) -> None:
        """Starts over: the last try went well."""
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
        BrokerError: None does; the error is the most telling one. Or preparing failed; the connection is closed then.
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


def translate(error: BaseException, endpoint: Endpoint | str = "the broker") -> BrokerError:
    """Our error for one of pika's."""
    if isinstance(error, BrokerError):
        return error
    code = getattr(error, "reply_code", None)
    text = str(getattr(error, "reply_text", "") or error or type(error).__name__)
    if code == ACCESS_REFUSED:
        return PermissionMissing(f"{text}. Grant it with: rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ")
    if code == PRECONDITION_FAILED and "inequivalent" in text:
        return TopologyConflict(
            f"{text}. RabbitMQ never changes arguments: empty and delete that queue or exchange, or use another prefix"
        )
    if code == PRECONDITION_FAILED and (timeout := _TIMED_OUT.search(text)):
        return ConsumerTimeout(f"{timedelta(milliseconds=int(timeout[1]))}")
    if code is not None and code not in (200, 320):
        return BrokerError(f"{endpoint} closed the channel or connection: {code} {text}")
    return BrokerUnavailable(f"the connection to {endpoint} is lost: {text}")


async def _open(broker: Broker, endpoint: Endpoint, name: str, heartbeat: timedelta, plugins: str) -> Connection:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not opened.done():
            outcome()

    raw = AsyncioConnection(
        _parameters(broker, endpoint, name, heartbeat, plugins),
        on_open_callback=lambda connection: settle(lambda: opened.set_result(connection)),
        on_open_error_callback=lambda _connection, error: settle(
            lambda: opened.set_exception(_opening_error(broker, endpoint, error))
        ),
        custom_ioloop=loop,
    )
    raw.add_on_close_callback(
        lambda _connection, error: settle(lambda: opened.set_exception(_opening_error(broker, endpoint, error)))
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT * 2):
            raw = await opened
    except TimeoutError:
        raise BrokerUnavailable(f"{endpoint} took the connection and then said nothing for {CONNECT_TIMEOUT * 2:g} s") from None
    return Connection(raw, endpoint, loop)


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


def _opening_error(broker: Broker, endpoint: Endpoint, error: BaseException) -> BrokerError:
    """What went wrong, in the words of whoever has to mend it."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, (pika_errors.ProbableAuthenticationError, pika_errors.AuthenticationError)):
            return AuthenticationFailed(endpoint, broker.user)
        if isinstance(cause, pika_errors.ProbableAccessDeniedError) or getattr(cause, "reply_code", 0) == NOT_ALLOWED:
            return VhostNotFound(endpoint, broker.vhost, broker.user)
        if isinstance(cause, ssl.SSLError):
            return TlsFailed(endpoint, cause)
        if isinstance(cause, pika_errors.IncompatibleProtocolError):
            return TlsFailed(endpoint, "it does not speak plain AMQP; perhaps it expects TLS")
    telling = next((cause for cause in causes if isinstance(cause, OSError)), causes[-1])
    return BrokerUnavailable.at(endpoint, str(telling) or type(telling).__name__)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything pika wrapped into it."""
    found, queue = [], [error]
    while queue:
        current = queue.pop(0)
        if current in found:
            continue
        found.append(current)
        inner = [
            getattr(current, "exception", None),
            current.__cause__,
            *getattr(current, "exceptions", ()),
            *current.args,
        ]
        queue += [item for item in inner if isinstance(item, BaseException)]
    return found
