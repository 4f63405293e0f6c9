"""No framework: a loop on pika's own asyncio adapter that validates the same payload and acknowledges in batches.

No retries, no journal, no limits, no reconnecting: the most that the client library allows.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection

from benchmarks.systems import program
from benchmarks.systems.payload import Add

QUEUE = f"{program.PREFIX}.bare"
ACK_EVERY = program.PREFETCH // 2
WINDOW = int(os.environ.get("BENCH_WINDOW", "1000"))  # unconfirmed messages
PROPERTIES = BasicProperties(content_type="application/json", delivery_mode=2, type="bench.add")


async def channel_of() -> Any:
    """An open channel."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    AsyncioConnection(
        URLParameters(program.URL),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened.set_result),
        on_open_error_callback=lambda _connection, error: opened.set_exception(error),
    )
    return await opened


def prepare() -> None:
    """Declares the queue."""
    connection = pika.BlockingConnection(URLParameters(program.URL))
    connection.channel().queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    connection.close()


def work() -> None:
    """Consumes until SIGTERM."""
    asyncio.run(_consume())


async def _consume() -> None:
    ledger, channel, ended = program.ledger(), await channel_of(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    got = 0

    def on_message(raw: Any, method: Any, _properties: Any, body: bytes) -> None:
        nonlocal got
        ledger.started(Add.model_validate_json(body).x)
        got += 1
        if got % ACK_EVERY == 0:
            raw.basic_ack(method.delivery_tag, multiple=True)

    channel.basic_qos(prefetch_count=program.PREFETCH)
    channel.basic_consume(QUEUE, on_message_callback=on_message)
    await ended.wait()
    channel.basic_ack(0, multiple=True)
    await asyncio.sleep(0.1)


class Publisher:
    """Confirms, either awaited one by one or in a window."""

    def __init__(self) -> None:
        self._channel: Any = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._confirmed = 0
        self._pump: Callable[[], object] = lambda: None

    async def connect(self) -> None:
        """Opens the channel."""
        self._channel = await channel_of()
        selected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._channel.confirm_delivery(ack_nack_callback=self._on_confirm, callback=selected.set_result)
        await selected

    async def publish(self, n: int) -> None:
        """One."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._send(n)
        await future

    async def many(self, numbers: range) -> None:
        """Pipelined: a window of unconfirmed messages."""
        left, done = iter(numbers), asyncio.get_running_loop().create_future()
        sent, first = 0, self._confirmed

        def pump() -> None:
            nonlocal sent
            while sent - (self._confirmed - first) < WINDOW and (number := next(left, None)) is not None:
                self._send(number)
                sent += 1
            if self._confirmed - first >= len(numbers) and not done.done():
                done.set_result(None)

        self._pump = pump
        pump()
        await done

    def _send(self, n: int) -> None:
        self._channel.basic_publish("", QUEUE, Add(x=n).model_dump_json().encode(), PROPERTIES, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        self._confirmed = max(self._confirmed, tag) if frame.method.multiple else self._confirmed + 1
        if self._waiting:
            self._waiting.popleft().set_result(None)
        self._pump()


if __name__ == "__main__":
    publisher = Publisher()
    program.main(work=work, publish=publisher.publish, many=publisher.many, connect=publisher.connect, prepare=prepare)
