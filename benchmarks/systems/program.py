"""What every system's program does, so that all are measured alike. Standard library only.

`python -m benchmarks.systems.NAME prepare` makes what must be there before anything is published; `work` runs a worker until
SIGTERM, `schedule` a scheduler of a hundred schedules that are not due; `publish HOW FIRST COUNT [RATE]` publishes jobs
numbered from FIRST and prints `{"seconds", "cpu_seconds", "peak_mb"}` as JSON. HOW is `one`, each confirmed before the next;
`many`, the quickest way the system has; or `paced`, RATE a second.

Environment: BENCH_URL, the broker; BENCH_PREFIX, the first part of every queue's name; BENCH_LEDGER, the ledger's file;
BENCH_PROCESSES, worker processes; BENCH_POOL, where handlers run: `async`, `thread` or `process`; BENCH_PREFETCH; BENCH_BLOCK,
seconds that a handler blocks; BENCH_AS_IT_COMES, no sizes are given to the worker's command.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.ledger import Ledger

URL = os.environ.get("BENCH_URL", "amqp://guest:guest@127.0.0.1/")
PREFIX = os.environ.get("BENCH_PREFIX", "bench")
PROCESSES = int(os.environ.get("BENCH_PROCESSES", "1"))
POOL = os.environ.get("BENCH_POOL", "async")
PREFETCH = int(os.environ.get("BENCH_PREFETCH", "200"))
AS_IT_COMES = "BENCH_AS_IT_COMES" in os.environ
BLOCK = float(os.environ.get("BENCH_BLOCK", "0"))
THREADS, CHILDREN = 8, 2  # sizes of the pools, the same for every system
SCHEDULES = 100
NOTE = "n" * 160  # makes a payload of about 200 bytes
Publish = Callable[[int], Awaitable[object] | object]
PublishMany = Callable[[range], Awaitable[object] | object]


def ledger() -> Ledger:
    """The ledger of this run."""
    return Ledger(Path(os.environ["BENCH_LEDGER"]))


def block() -> None:
    """What a handler waits for: a database, a file, a service."""
    if BLOCK:
        time.sleep(BLOCK)


def main(
    *,
    work: Callable[[], object],
    publish: Publish,
    many: PublishMany | None = None,
    connect: Callable[[], Awaitable[object]] | None = None,
    prepare: Callable[[], object] | None = None,
    schedule: Callable[[], object] | None = None,
) -> None:
    """Runs the command of `sys.argv`.

    Args:
        work: Runs a worker.
        publish: Publishes one job, confirmed.
        many: Publishes many; by default one after the other.
        connect: Connects the publisher.
        prepare: Makes what must be there first.
        schedule: Runs a scheduler, where the system has one.
    """
    match sys.argv[1:]:
        case ["prepare"]:
            if prepare is not None:
                prepare()
        case ["work"]:
            ledger().began()  # the worker's command does not pay for what this program has imported
            work()
        case ["schedule"] if schedule is not None:
            schedule()
        case ["publish", how, first, count, *rate]:
            numbers = range(int(first), int(first) + int(count))
            seconds, cpu = asyncio.run(_publish(how, numbers, float(rate[0]) if rate else 0.0, publish, many, connect))
            print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak_mb("self")}))
            sys.stdout.flush()
            os._exit(0)  # what the system's own threads still wait for is not measured
        case others:
            sys.exit(f"prepare, work, schedule or publish HOW FIRST COUNT [RATE], not {others}")


async def _publish(
    how: str,
    numbers: range,
    rate: float,
    publish: Publish,
    many: PublishMany | None,
    connect: Callable[[], Awaitable[object]] | None,
) -> tuple[float, float]:
    if connect is not None:
        await connect()
    began, cpu = time.perf_counter(), time.process_time()
    if how == "many" and many is not None:
        await _done(many(numbers))
    elif how == "paced":
        await _publish_paced(numbers, rate, publish)
    else:
        for number in numbers:
            await _done(publish(number))
    return time.perf_counter() - began, time.process_time() - cpu


async def _publish_paced(numbers: range, rate: float, publish: Publish) -> None:
    book, began = ledger(), time.perf_counter()
    for place, number in enumerate(numbers):
        await asyncio.sleep(max(began + place / rate - time.perf_counter(), 0))
        book.published(number)
        await _done(publish(number))


async def _done(result: Awaitable[object] | object) -> None:
    if inspect.isawaitable(result):
        await result


def peak_mb(process: int | str) -> float:
    """The largest resident size that a process has had, in MB; 0 where the kernel does not say, or it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    # Not `getrusage`: its number includes the program that started this one.
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) / 1024


async def in_windows(numbers: range, publish: Callable[[int], Awaitable[object]], window: int = 500) -> None:
    """Publishes a window at once: what one does with a client that has no bulk publishing of its own."""
    for first in range(numbers.start, numbers.stop, window):
        await asyncio.gather(*(publish(number) for number in range(first, min(first + window, numbers.stop))))
