"""rmqjobs as it comes: workers from the command line, the plugin found through an entry point, journal on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from benchmarks.systems import program
from rmqjobs import AsyncPublisher, Job, Payload, Plugin, Publisher, RetryPolicy, Settings
from rmqjobs.amqp import leases

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))  # the default; twice that is the prefetch it begins with
SETTINGS = Settings(
    url=program.URL,
    prefix=f"{program.PREFIX}.rmqjobs",
    concurrency=CONCURRENCY,
    threads="auto" if program.AS_IT_COMES else program.THREADS,
    children="auto" if program.AS_IT_COMES else program.CHILDREN,
    processes=program.PROCESSES,
    event_loop=os.environ.get("BENCH_EVENT_LOOP", "asyncio"),
)
if "BENCH_ACK_DELAY" in os.environ:
    leases.ACK_DELAY = float(os.environ["BENCH_ACK_DELAY"])
LEDGER = program.ledger() if "BENCH_LEDGER" in os.environ else None
DELAY = timedelta(seconds=1)  # of a retry
GROUP = 1_000  # jobs that are delayed alike
AT_A_TIME = 10_000  # jobs of a `publish_many`, which returns all their ids
plugin = Plugin("bench", retry=RetryPolicy(first_delay=DELAY, jitter=0))


class Add(Payload, type="bench.add"):
    """About 200 bytes as JSON."""

    x: int
    y: int = 1
    note: str = program.NOTE


class AddInThread(Add, type="bench.add-in-thread"):
    """The same."""


class AddInChild(Add, type="bench.add-in-child"):
    """The same."""


class Fail(Add, type="bench.fail"):
    """The same; its first attempt fails."""


class Later(Add, type="bench.later"):
    """The same; it is published with a delay."""


def _note(n: int) -> None:
    if LEDGER is not None:
        LEDGER.started(n)


@plugin.handler
async def add(payload: Add) -> int:
    """Async."""
    _note(payload.x)
    return payload.x + payload.y


@plugin.handler(pool="thread")
def add_in_thread(payload: AddInThread) -> int:
    """In a thread."""
    _note(payload.x)
    program.block()
    return payload.x + payload.y


@plugin.handler(pool="process")
def add_in_child(payload: AddInChild) -> int:
    """In a child process."""
    _note(payload.x)
    return payload.x + payload.y


class Expected(Exception):
    """The failure of a first attempt."""


@plugin.handler(queue="fails")
async def fail(payload: Fail, job: Job) -> None:
    """Fails, then succeeds."""
    if job.attempt == 1:
        if LEDGER is not None:
            LEDGER.published(payload.x)
        raise Expected
    _note(payload.x)


@plugin.handler(queue="later")
async def later(payload: Later) -> None:
    """Notes when it came."""
    _note(payload.x)


PAYLOADS = {"async": Add, "thread": AddInThread, "process": AddInChild, "fail": Fail, "later": Later}


def payload_of(n: int) -> Add:
    """The payload of job `n`, of the type that this run is about."""
    return PAYLOADS[program.POOL](x=n)


def _environ() -> dict[str, str]:
    """With an entry point, so that the command finds the plugin as it finds every plugin."""
    site = Path(os.environ["BENCH_LEDGER"]).parent / "site"
    info = site / "rmqjobs_bench-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rmqjobs-bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rmqjobs.plugins]\nbench = benchmarks.systems.rmqjobs:plugin\n"
        "bench-schedules = benchmarks.systems.rmqjobs_schedules:plugin\n"
    )
    return os.environ | SETTINGS.as_environ() | {"PYTHONPATH": f"{site}{os.pathsep}{Path.cwd()}"}


def prepare() -> None:
    """Makes the queues: without them, jobs would be unrouted."""
    command = [sys.executable, "-m", "rmqjobs", "topology", "apply", "--plugin", "bench"]
    subprocess.run(command, env=_environ(), check=True, stdout=subprocess.DEVNULL)


def work() -> None:
    """The worker's command line; this process becomes it."""
    _become("worker", "--plugin", "bench")


def schedule() -> None:
    """The scheduler's command line."""
    _become("scheduler", "--plugin", "bench-schedules")


def _become(*command: str) -> None:
    os.execve(sys.executable, [sys.executable, "-m", "rmqjobs", *command], _environ())


class Asynchronous:
    """Publishes from the event loop."""

    def __init__(self) -> None:
        self._jobs = AsyncPublisher(settings=SETTINGS)

    async def connect(self) -> None:
        """Connects, and declares what a publisher declares by itself."""
        await self._jobs.publish_json("bench.nobody", {})

    async def publish(self, n: int) -> None:
        """One."""
        await self._jobs.publish(payload_of(n))

    async def many(self, numbers: range) -> None:
        """Pipelined."""
        if program.POOL == "later":
            await self._delayed(numbers)
            return
        for first in range(numbers.start, numbers.stop, AT_A_TIME):
            await self._jobs.publish_many(map(payload_of, range(first, min(first + AT_A_TIME, numbers.stop))))

    async def _delayed(self, numbers: range) -> None:
        """Groups of a thousand, each with a delay of its own; when it is due is noted as the time of publishing."""
        assert LEDGER is not None
        least, most, pause = (float(os.environ[f"BENCH_{name}"]) for name in ("LEAST", "MOST", "PAUSE"))
        delays, began = Random(1), time.time()  # noqa: S311 - the same ones each time
        for place, first in enumerate(range(numbers.start, numbers.stop, GROUP)):
            await asyncio.sleep(max(began + place * pause - time.time(), 0))
            due = time.time() + delays.uniform(least, most)
            some = range(first, min(first + GROUP, numbers.stop))
            for number in some:
                LEDGER.published(number, due)
            await self._jobs.publish_many(map(payload_of, some), run_at=datetime.fromtimestamp(due, UTC))


class Synchronous:
    """Publishes from threads, as a web application without an event loop does."""

    THREADS = 16

    def __init__(self) -> None:
        self._jobs = Publisher(settings=SETTINGS)

    async def connect(self) -> None:
        """As above."""
        self._jobs.publish_json("bench.nobody", {})

    def publish(self, n: int) -> None:
        """One."""
        self._jobs.publish(payload_of(n))

    def many(self, numbers: range) -> None:
        """One by one from each of many threads."""
        with ThreadPoolExecutor(self.THREADS) as threads:
            for _ in threads.map(self._some, [numbers[start :: self.THREADS] for start in range(self.THREADS)]):
                pass

    def _some(self, numbers: range) -> None:
        for number in numbers:
            self.publish(number)


if __name__ == "__main__":
    publisher = Synchronous() if "BENCH_SYNCHRONOUS" in os.environ else Asynchronous()
    program.main(
        work=work,
        publish=publisher.publish,
        many=publisher.many,
        connect=publisher.connect,
        prepare=prepare,
        schedule=schedule,
    )
