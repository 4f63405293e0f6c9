"""One run of one system: its publisher and its worker as real processes, its ledger, and what the kernel says they used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.ledger import Ledger
from benchmarks.systems.program import peak_mb

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".tools" / "peers" / "bin" / "python"
NODE_MODULES = ROOT / ".tools" / "node" / "node_modules"
PATIENCE = 20.0  # seconds in which nothing happens
LOOK_EVERY = 0.01
OURS = ("rmqjobs", "bare")


class Void(Exception):
    """A job did not run, or ran twice, or a process died: the number means nothing."""


@dataclass(frozen=True)
class Variant:
    """A system in one configuration.

    Args:
        name: Its name in the tables.
        system: Its module in `systems`.
        environ: `BENCH_…` variables, see `systems.program`.
        jobs: As many as it drains in a few seconds.
        python: The interpreter that runs its program, with the system installed.
    """

    name: str
    system: str
    environ: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 6_000
    python: str = ""

    @property
    def command(self) -> list[str]:
        """The command that runs its program."""
        if self.system == "bullmq":
            return ["node", str(ROOT / "benchmarks" / "systems" / "bullmq.mjs")]
        ours = self.system in OURS
        return [self.python or (sys.executable if ours else str(PEERS)), "-m", f"benchmarks.systems.{self.system}"]


@dataclass(frozen=True)
class Place:
    """Where systems meet.

    Args:
        url: URL of RabbitMQ.
        redis: URL of Redis, for BullMQ; empty when there is none.
        folder: For ledgers and logs.
        brokers: Ids of the processes of RabbitMQ and Redis, to measure their CPU.
    """

    url: str
    redis: str
    folder: Path
    brokers: Sequence[int] = ()


@dataclass(frozen=True)
class Published:
    """What a publisher's process reported: jobs a second, CPU seconds per 10,000 jobs, its peak memory in MB."""

    rate: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Drained:
    """From the first start to the last: jobs a second, CPU seconds per 10,000 jobs, peak memory in MB of all its processes.

    `broker` is the CPU time that the broker took for the same jobs.
    """

    rate: float
    cpu: float
    broker: float
    peak: float


class Run:
    """One run; use it with `running`.

    Args:
        place: The brokers.
        variant: The system.
        jobs: How many jobs, numbered from 0.
    """

    def __init__(self, place: Place, variant: Variant, jobs: int) -> None:
        self.variant, self.jobs, self._brokers = variant, jobs, place.brokers
        self._folder = Path(tempfile.mkdtemp(prefix=f"{variant.system}-", dir=place.folder))
        self.ledger = Ledger(self._folder / "ledger", jobs)
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RMQJOBS_")},
            "BENCH_URL": place.url,
            "BENCH_REDIS": place.redis,
            "BENCH_PREFIX": "bench",
            "BENCH_LEDGER": str(self.ledger.path),
            "NODE_PATH": str(NODE_MODULES),
            **variant.environ,
        }
        self._worker: subprocess.Popen[bytes] | None = None
        self.work_began = 0.0  # seconds since 1970

    def prepare(self) -> None:
        """Makes the queues."""
        self._end_of(self._start("prepare"))

    def publish(self, how: str, first: int, count: int, rate: float | None = None) -> Published:
        """Publishes, in a process of its own, and waits for its end."""
        return self.start_publishing(how, first, count, rate)()

    def start_publishing(self, how: str, first: int, count: int, rate: float | None = None) -> Callable[[], Published]:
        """Begins to publish; the function that it returns waits for the end."""
        process = self._start("publish", how, str(first), str(count), *([] if rate is None else [str(rate)]))

        def end() -> Published:
            said = json.loads(self._end_of(process))
            return Published(count / said["seconds"], said["cpu_seconds"] / count * 10_000, said["peak_mb"])

        return end

    def start_worker(self, command: str = "work") -> None:
        """Starts a worker or, with another command, a scheduler, without waiting until it is ready."""
        self.work_began = time.time()
        log = (self._folder / "worker.log").open("wb")
        self._worker = subprocess.Popen(
            [*self.variant.command, command], cwd=ROOT, env=self._environ, stdout=log, stderr=log, start_new_session=True
        )

    def drain(self) -> Drained:
        """Starts a worker for what is published, and measures from the first job's start to the last one's."""
        self.start_worker()
        self.wait(1)
        before, broker_before, done = self.worker_cpu(), self.broker_cpu(), self.ledger.done()
        self.wait(self.jobs)
        cpu, broker = self.worker_cpu() - before, self.broker_cpu() - broker_before
        per_10_000 = 10_000 / (self.jobs - done or 1)
        times = self.ledger.start_times()
        return Drained(self.jobs / (max(times) - min(times)), cpu * per_10_000, broker * per_10_000, self.worker_peak())

    def wait(self, done: int, patience: float = 0.0) -> None:
        """Waits until `done` jobs have run; `patience` is for seconds in which none can."""
        ran, deadline = 0, time.monotonic() + PATIENCE + patience
        while (now := self.ledger.done()) < done:
            if now > ran:
                ran, deadline = now, time.monotonic() + PATIENCE
            if self._worker is not None and self._worker.poll() is not None:
                raise Void(f"{self.variant.name}: the worker ended with {self._worker.returncode}\n{self._log()}")
            if time.monotonic() > deadline:
                raise Void(f"{self.variant.name}: {now} of {done} jobs ran, and no more in {PATIENCE:g} s\n{self._log()}")
            time.sleep(LOOK_EVERY)

    def worker_cpu(self) -> float:
        """Seconds of the worker and all its processes."""
        return _cpu_of(self._processes())

    def broker_cpu(self) -> float:
        """Seconds of the broker."""
        return _cpu_of(process for pid in self._brokers for process in _family_of(pid))

    def worker_peak(self) -> float:
        """Megabytes: each process's largest resident size, added up."""
        return sum(peak_mb(each.pid) for each in self._processes())

    def check(self) -> None:
        """Raises `Void` unless each job ran exactly once."""
        runs = self.ledger.runs()
        if set(runs) != {1}:
            twice = sum(count > 1 for count in runs)
            raise Void(f"{self.variant.name}: {runs.count(0)} jobs did not run, {twice} ran more than once\n{self._log()}")

    def end(self) -> None:
        """Stops the worker as a service manager does."""
        if self._worker is None or self._worker.poll() is not None:
            return
        family = self._processes()
        self._worker.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=15)
        for each in alive:
            each.kill()
        self._worker.wait()

    def _processes(self) -> list[psutil.Process]:
        return [] if self._worker is None else _family_of(self._worker.pid)

    def _start(self, *words: str) -> subprocess.Popen[str]:
        command, pipe = [*self.variant.command, *words], subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=self._environ, stdout=pipe, stderr=pipe, text=True)

    def _end_of(self, process: subprocess.Popen[str]) -> str:
        said, complaint = process.communicate()
        if process.returncode:
            raise Void(f"{self.variant.name}: {process.args!r} failed:\n{complaint[-2000:]}")
        return said

    def _log(self) -> str:
        path = self._folder / "worker.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""


def _family_of(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_of(processes: Iterable[psutil.Process]) -> float:
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:2])
    return seconds


@contextmanager
def running(place: Place, variant: Variant, jobs: int) -> Iterator[Run]:
    """A run whose worker is ended, whatever happens, and that is checked when nothing went wrong."""
    run = Run(place, variant, jobs)
    try:
        run.prepare()
        yield run
    finally:
        run.end()
    run.check()
