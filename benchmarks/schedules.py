"""The scheduler at scale: 5,000 schedules, 1,000 of them due in the same second; and what it costs while nothing is due.

The peer publishes the same 1,000 messages, confirmed and pipelined, over a bare pika channel. A claim makes a tick run once;
its cost shows in comparison with the same jobs without one. Run it with `make bench-schedules`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aio_pika
from rich.console import Console
from rich.table import Table

from rmqjobs import AsyncPublisher, Payload, Plugin, Settings
from rmqjobs.amqp.claims import Claims, release
from rmqjobs.amqp.connection import connect
from rmqjobs.amqp.holding import Holding
from rmqjobs.plugins import registry_of
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.testing.broker import running_broker
from rmqjobs.topology import Names
from rmqjobs.wire.jobs import Message
from rmqjobs.worker import Worker

IDLE = 20.0  # seconds
out = Console(highlight=False)


class Report(Payload, type="bench.report"):
    """About 200 bytes as JSON."""

    n: int
    note: str = "n" * 160


class Void(Exception):
    """A tick is missing, or came twice: the number means nothing."""


def plugin_of(schedules: int, due: int, at: datetime, starts: list[float] | None = None) -> Plugin:
    """`due` schedules tick in one second, the others not today; jobs note when they start."""
    plugin = Plugin("bench")

    @plugin.handler
    async def report(_payload: Report) -> None:
        if starts is not None:
            starts.append(time.time())

    hour = at + timedelta(hours=6)
    for n in range(schedules):
        if n < due:
            plugin.schedule(f"due-{n}", every=timedelta(days=1), start=at, payload=Report(n=n))
        else:
            plugin.schedule(f"later-{n}", cron=f"H {hour.hour} * * *", tz="Europe/Berlin", payload=Report(n=n))
    return plugin


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[dict[str, float]]:
    """When each tick's job reached a queue, by job id."""
    arrived: dict[str, float] = {}
    connection = await aio_pika.connect(settings.url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=5000)
        queue = await channel.get_queue(f"{settings.prefix}.bench", ensure=False)

        async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            if message.message_id in arrived:
                raise Void(message.message_id)
            arrived[message.message_id or ""] = time.time()

        await queue.consume(on_message, no_ack=True)
        yield arrived


async def measure(settings: Settings, schedules: int, due: int) -> tuple[float, float, float]:
    """Seconds from the due second to the last tick in its queue; to load the schedules; and for the bare loop."""
    worker = Worker(registry_of(plugin_of(1, 0, datetime.now(UTC))), settings)
    await worker.start()
    await worker.drain(timedelta(0))  # the queue is declared
    at = (datetime.now(UTC) + timedelta(seconds=10)).replace(microsecond=0)
    plugin = plugin_of(schedules, due, at)
    started = time.perf_counter()
    scheduler = Scheduler(lambda: Catalogue(registry_of(plugin)), settings)
    stop = asyncio.Event()
    running = asyncio.create_task(scheduler.run(stop))
    while not scheduler.is_active:
        await asyncio.sleep(0.01)
    loading = time.perf_counter() - started
    async with counting(settings) as arrived:
        while len(arrived) < due:
            if time.time() > at.timestamp() + 30:
                raise Void(f"{len(arrived)} of {due} ticks came")
            await asyncio.sleep(0.01)
    COSTS.append(await idle(scheduler))
    stop.set()
    await running
    return max(arrived.values()) - at.timestamp(), loading, await bare(settings, due)


async def starts(settings: Settings, due: int) -> tuple[float, float]:
    """Seconds until the last of `due` jobs has started: ticks of one second, and the same jobs published by hand."""
    began: list[float] = []
    at = (datetime.now(UTC) + timedelta(seconds=6)).replace(microsecond=0)
    registry = registry_of(plugin_of(due, due, at, began))
    worker = Worker(registry, settings)
    await worker.start()
    scheduler, stop = Scheduler(lambda: Catalogue(registry), settings), asyncio.Event()
    running = asyncio.create_task(scheduler.run(stop))
    await until_started(began, due)
    ticks = max(began) - at.timestamp()
    stop.set()
    await running
    began.clear()
    async with AsyncPublisher(settings=settings) as jobs:
        await jobs.publish(Report(n=0))  # connected
        await until_started(began, 1)
        at_once = time.time()
        await jobs.publish_many(Report(n=n) for n in range(due))
        await until_started(began, due + 1)
    await worker.drain(timedelta(seconds=5))
    return ticks, max(began) - at_once


async def until_started(began: list[float], count: int) -> None:
    """Waits until `count` jobs have started."""
    limit = time.monotonic() + 60
    while len(began) < count:
        if time.monotonic() > limit:
            raise Void(f"{len(began)} of {count} jobs started")
        await asyncio.sleep(0.01)


async def claims(settings: Settings, count: int) -> tuple[float, float]:
    """Seconds for taking `count` claims, as many at a time as a worker does, and for ending them."""
    names = Names(settings.prefix)
    connection = await connect(settings.broker, name="bench", heartbeat=settings.heartbeat)
    taking = Claims(names, lambda: connection)
    started = time.perf_counter()
    taken = await asyncio.gather(*(taking.take(str(n), "bench") for n in range(count)))
    middle = time.perf_counter()
    await release(connection, names, map(str, range(count)))
    ended = time.perf_counter()
    await connection.close()
    if not all(taken):
        raise Void("a claim was refused")
    return middle - started, ended - middle


async def idle(scheduler: Scheduler) -> tuple[float, int]:
    """CPU seconds an hour, and tokens written, while nothing is due."""
    active = scheduler._active  # noqa: SLF001 - the count of its writings
    assert active is not None
    await asyncio.sleep(2)
    before, version = resource.getrusage(resource.RUSAGE_SELF), active.token.version
    await asyncio.sleep(IDLE)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu / IDLE * 3600, active.token.version - version


async def bare(settings: Settings, count: int) -> float:
    """Seconds for the same messages, published and confirmed in one pipelined batch."""

    async def nothing(_connection: object) -> None: ...

    queue = Names(settings.prefix).scheduler
    holding = await Holding.open(settings, queue, role="bench", prepare=nothing)
    body = Report(n=0).model_dump_json().encode()
    messages = [Message(f"{settings.prefix}.jobs", Report.job_type, body, message_id=f"bare-{n}") for n in range(count)]
    started = time.perf_counter()
    failures = await holding.publish(messages)
    elapsed = time.perf_counter() - started
    await holding.close()
    if failures:
        raise Void(str(failures))
    return elapsed


def medians(rows: Sequence[tuple[float, ...]]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


COSTS: list[tuple[float, int]] = []


def main() -> None:
    """Runs the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=5_000)
    parser.add_argument("--due", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with running_broker(os.environ) as broker:
        out.print(f"{options.rounds} rounds on {broker.how}, {os.cpu_count()} cores")
        rounds, started, claimed = [], [], []
        for _ in range(options.rounds):
            settings = Settings(url=broker.url, prefix=f"bench-{secrets.token_hex(3)}")
            rounds.append(asyncio.run(measure(settings, options.schedules, options.due)))
            started.append(asyncio.run(starts(settings.model_copy(update={"prefix": f"{settings.prefix}-s"}), options.due)))
            claimed.append(asyncio.run(claims(settings, options.due)))
    ticking, loading, peer = medians(rounds)
    ticks, plain = medians(started)
    taking, ending = medians(claimed)
    table = Table("what", "median", box=None)
    table.add_row(
        f"{options.due:,} of {options.schedules:,} schedules due at once: last job in its queue after", f"{ticking:.2f} s"
    )
    table.add_row("the same messages by a bare pipelined loop", f"{peer:.2f} s (ratio {ticking / peer:.1f})")
    table.add_row("the last of them started by a worker, which claims each, after", f"{ticks:.2f} s")
    table.add_row("the same jobs published by hand, without claims", f"{plain:.2f} s (ratio {ticks / plain:.1f})")
    table.add_row("a claim", f"{taking / options.due * 1000:.2f} ms to take, {ending / options.due * 1000:.2f} ms to end")
    table.add_row("from start to active, all schedules loaded and checked", f"{loading:.2f} s")
    table.add_row("idle: CPU seconds an hour", f"{statistics.median(cpu for cpu, _ in COSTS):.1f}")
    table.add_row(f"idle: messages in {IDLE:g} s", f"{max(tokens for _, tokens in COSTS)}")
    out.print(table)


if __name__ == "__main__":
    main()
