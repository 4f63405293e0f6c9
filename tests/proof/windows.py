"""Each tick runs once, also when the active scheduler is lost in the one moment that matters: its ticks are published, and
the token that says so is not written yet. The next active one publishes them again.

The moment is forced, over and over; runs are counted in a ledger.
"""

import asyncio
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pika.exceptions import StreamLostError

from rmqjobs import Job, Payload, Plugin, Settings
from rmqjobs.journal import follow
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.scheduler.active import Active
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.wire.headers import MARK
from rmqjobs.worker import Worker

WINDOWS = int(os.environ.get("RMQJOBS_PROOF_WINDOWS", "100"))
SCHEDULES = 5  # a second apart each, 0.2 s from one to the next
TIMEOUT = WINDOWS * 3 + 240  # seconds


class Beat(Payload, type="proof.beat"):
    """Says which tick it is."""


class Ledger:
    """What ran, as its handlers wrote it down."""

    def __init__(self, begin: datetime) -> None:
        self.runs = Counter[str]()
        self.marks = defaultdict[str, set[str]](set)  # of the publications that ran, by job id
        self.plugin = Plugin("proof")
        for number in range(SCHEDULES):
            start = begin + timedelta(seconds=number / SCHEDULES)
            every = timedelta(seconds=1)
            self.plugin.schedule(f"beat-{number}", every=every, start=start, payload=Beat(), misfire="all")

        @self.plugin.handler
        async def beat(_payload: Beat, job: Job) -> None:
            self.runs[job.id] += 1
            self.marks[job.id].add(job.headers[MARK])

    @property
    def registry(self) -> Registry:
        return registry_of(self.plugin)

    def of(self, number: int) -> list[datetime]:
        """Planned times of one schedule's ticks that ran, in order."""
        name = f"proof.beat-{number}@"
        return sorted(datetime.fromisoformat(job_id.partition("@")[2]) for job_id in self.runs if job_id.startswith(name))

    def missing(self) -> list[datetime]:
        gaps = []
        for number in range(SCHEDULES):
            planned = self.of(number)
            seconds = round((planned[-1] - planned[0]).total_seconds()) + 1
            gaps += [at for at in (planned[0] + timedelta(seconds=n) for n in range(seconds)) if at not in planned]
        return gaps


@contextmanager
def lost_in_the_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[datetime]]:
    """Whoever has published ticks loses its connection before the token is written; when, each time."""
    lost: list[datetime] = []
    write, tick = Active.write, Active._tick
    ticking: set[Active] = set()

    async def tick_and_lose(active: Active, *arguments: object) -> None:
        ticking.add(active)
        try:
            await tick(active, *arguments)  # type: ignore[arg-type]
        finally:
            ticking.discard(active)

    async def lose(active: Active) -> None:
        # Not twice in a row: a token must be written now and then for the rest to go on.
        if active in ticking and len(lost) < WINDOWS and secrets.randbelow(3):
            lost.append(datetime.now(UTC))
            active._holding.connection.raw._terminate_stream(StreamLostError("lost in the window"))
        await write(active)

    monkeypatch.setattr(Active, "_tick", tick_and_lose)
    monkeypatch.setattr(Active, "write", lose)
    yield lost


@asynccontextmanager
async def running(ledger: Ledger, settings: Settings) -> AsyncIterator[None]:
    """Three schedulers and two workers."""
    async with AsyncExitStack() as stack:
        for _ in range(2):
            worker = Worker(ledger.registry, settings)
            await worker.start()
            stack.push_async_callback(worker.drain, timedelta(seconds=20))
        stop = asyncio.Event()
        schedulers = [Scheduler(lambda: Catalogue(ledger.registry, None), settings) for _ in range(3)]
        tasks = [asyncio.create_task(scheduler.run(stop)) for scheduler in schedulers]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def skipped(settings: Settings) -> int:
    """Publications that did not run, because another one of the same tick had."""
    records = [event async for event in follow(settings, start="first", stop_at_end=True)]
    return sum(event.kind == "skipped" and event.data.get("reason") == "published twice" for event in records)


def check(ledger: Ledger, lost: list[datetime], *, redelivered: int = 0) -> None:
    """None missing, none run for two publications.

    Args:
        ledger: What ran.
        lost: When a connection was lost in the window.
        redelivered: How many may have run again for the same publication, because a node died with their acknowledgement.
    """
    twice = {job_id: runs for job_id, runs in ledger.runs.items() if runs > 1}
    print(f"\n{len(lost)} windows forced, {len(ledger.runs)} ticks ran; twice: {len(twice)}, missing: {len(ledger.missing())}")  # noqa: T201
    assert len(lost) >= WINDOWS
    assert {job_id: marks for job_id, marks in ledger.marks.items() if len(marks) > 1} == {}
    assert len(twice) <= redelivered
    assert ledger.missing() == []
