"""How much of the client library's speed a whole worker and publisher keep: ratios in one run, medians of interleaved rounds.

The peer is a bare loop on pika's asyncio adapter that validates the same payload and acknowledges in batches: no retries, no
journal, no reconnecting. Run it with `make bench`; each number counts only if every job ran exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from pika import BasicProperties, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from rich.console import Console
from rich.table import Table

from rmqjobs import AsyncPublisher, Payload, Plugin, Settings
from rmqjobs.amqp.connection import Connection
from rmqjobs.plugins import registry_of
from rmqjobs.testing.broker import running_broker
from rmqjobs.worker import Worker

PREFETCH, ACK_EVERY, WINDOW = 200, 100, 1000
out = Console(highlight=False)


class Add(Payload, type="bench.add"):
    """About 200 bytes as JSON."""

    x: int
    y: int = 1
    note: str = "n" * 160


class Void(Exception):
    """A job ran not at all, or twice: the number means nothing."""


Measured = Callable[[Settings, int], Coroutine[Any, Any, float]]


async def worker_drains(settings: Settings, count: int) -> float:
    """Jobs a second that a whole worker drains, journal on."""
    plugin, seen, done = Plugin("bench"), bytearray(count), asyncio.Event()
    left = count

    @plugin.handler
    async def add(payload: Add) -> int:
        nonlocal left
        seen[payload.x] += 1
        left -= 1
        if not left:
            done.set()
        return payload.x + payload.y

    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    await worker.drain(timedelta(0))  # the queue is declared
    await _fill(settings, count)
    worker = Worker(registry_of(plugin), settings)
    cpu, started = time.process_time(), time.perf_counter()
    await worker.start()
    await done.wait()
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    await worker.drain(timedelta(seconds=5))
    _check(seen)
    CPU["worker"].append(cpu / count * 10_000)
    return count / elapsed


async def bare_loop_drains(settings: Settings, count: int) -> float:
    """Jobs a second that a bare pika loop drains."""
    queue, seen, done = f"{settings.prefix}.bare", bytearray(count), asyncio.Event()
    async with AsyncPublisher(settings=settings) as jobs:
        await jobs.publish_json("bench.declares", {})
    connection = await bare_connection(settings)
    channel = await connection.channel()
    await channel.call("queue_declare", queue=queue, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.call("queue_bind", queue=queue, exchange=f"{settings.prefix}.jobs", routing_key=Add.job_type)
    await _fill(settings, count)
    await channel.call("basic_qos", prefetch_count=PREFETCH)
    got = 0

    def on_message(raw: Any, method: Any, _properties: Any, body: bytes) -> None:
        nonlocal got
        seen[Add.model_validate_json(body).x] += 1
        got += 1
        if got % ACK_EVERY == 0 or got == count:
            raw.basic_ack(method.delivery_tag, multiple=True)
        if got == count:
            done.set()

    cpu, started = time.process_time(), time.perf_counter()
    channel.raw.basic_consume(queue, on_message_callback=on_message)
    await done.wait()
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    await channel.call("queue_delete", queue=queue)
    await connection.close()
    _check(seen)
    CPU["bare loop"].append(cpu / count * 10_000)
    return count / elapsed


async def publisher_publishes(settings: Settings, count: int) -> float:
    """Jobs a second by `publish_many`, all confirmed."""
    async with AsyncPublisher(settings=settings) as jobs:
        await jobs.publish(Add(x=0))
        started = time.perf_counter()
        ids = await jobs.publish_many(Add(x=n) for n in range(count))
        elapsed = time.perf_counter() - started
    if len(set(ids)) != count:
        raise Void
    return count / elapsed


async def bare_loop_publishes(settings: Settings, count: int) -> float:
    """Messages a second by bare pipelined confirms."""
    async with AsyncPublisher(settings=settings) as jobs:
        await jobs.publish_json("bench.declares", {})
    connection = await bare_connection(settings)
    channel = await connection.channel()
    sent = confirmed = 0
    done = asyncio.Event()
    properties = BasicProperties(content_type="application/json", delivery_mode=2, type=Add.job_type)

    def pump() -> None:
        nonlocal sent
        while sent < count and sent - confirmed < WINDOW:
            body = Add(x=sent).model_dump_json().encode()
            channel.raw.basic_publish(f"{settings.prefix}.jobs", Add.job_type, body, properties, mandatory=True)
            sent += 1

    def on_confirm(frame: Any) -> None:
        nonlocal confirmed
        confirmed = max(confirmed, frame.method.delivery_tag) if frame.method.multiple else confirmed + 1
        pump()
        if confirmed >= count:
            done.set()

    await channel.call("confirm_delivery", ack_nack_callback=on_confirm)
    started = time.perf_counter()
    pump()
    await done.wait()
    elapsed = time.perf_counter() - started
    await connection.close()
    return count / elapsed


PAIRS: dict[str, tuple[Measured, Measured]] = {
    "drain, no-op typed jobs, one process": (worker_drains, bare_loop_drains),
    "publish_many, confirmed": (publisher_publishes, bare_loop_publishes),
}
CPU: dict[str, list[float]] = {"worker": [], "bare loop": []}


async def bare_connection(settings: Settings) -> Connection:
    """The client library's own adapter, without what our connections add."""
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    AsyncioConnection(URLParameters(settings.url), on_open_callback=opened.set_result)
    return Connection(await opened, settings.broker.endpoints[0], asyncio.get_running_loop())


async def _fill(settings: Settings, count: int) -> None:
    async with AsyncPublisher(settings=settings) as jobs:
        await jobs.publish_many(Add(x=n) for n in range(count))


def _check(seen: bytearray) -> None:
    if set(seen) != {1}:
        raise Void(f"{seen.count(0)} jobs did not run, {sum(times > 1 for times in seen)} ran twice")


def main() -> None:
    """Runs the pairs in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table("what", "rmqjobs /s", "bare pika /s", "ratio", box=None)
    with running_broker(os.environ) as broker:
        out.print(f"{options.rounds} interleaved rounds of {options.jobs:,} jobs on {broker.how}, {os.cpu_count()} cores")
        for what, (ours, peer) in PAIRS.items():
            rates: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds):
                for rate, measure in zip(rates, (ours, peer), strict=True):
                    settings = Settings(url=broker.url, prefix=f"bench-{secrets.token_hex(3)}")
                    rate.append(asyncio.run(measure(settings, options.jobs)))
            mine, theirs = (statistics.median(rate) for rate in rates)
            table.add_row(what, *(_span(rate) for rate in rates), f"{mine / theirs:.2f}")
    out.print(table)
    for who, seconds in CPU.items():
        out.print(f"CPU seconds per 10,000 jobs drained, {who}: {statistics.median(seconds):.2f}")


def _span(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


if __name__ == "__main__":
    main()
