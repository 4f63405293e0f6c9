"""One system under test: its workers, its publisher and its ledger, all of them real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.ledger import EFFECT, PUBLISHED, STARTED, Ledger

ROOT = Path(__file__).resolve().parents[2]
OURS = "rmqjobs"
PEERS = ("celery", "dramatiq", "taskiq", "faststream")
WITH_CHILDREN = (OURS, "celery", "dramatiq", "taskiq")  # FastStream has one process


@dataclass(frozen=True)
class Load:
    """What is published while a fault happens.

    Args:
        jobs: How many at the most.
        rate: So many a second.
        first: Number of the first one; from a million on jobs are long.
    """

    jobs: int = 10_000
    rate: float = 60
    first: int = 0

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.jobs)


@dataclass(eq=False)
class Team:
    """A system's two workers and its publisher.

    Args:
        name: Its module in `systems`.
        folder: Of its ledger and logs.
        url: The broker, by way of the proxy.
        python: Of the environment it is installed in.
    """

    name: str
    folder: Path
    url: str
    python: str = sys.executable
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    publisher: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.ledger = Ledger.create(self.folder / "ledger.sqlite")
        self.prefix = f"faults-{os.getpid()}"
        said = subprocess.run(
            self._command("queues"), env=self._environ(), cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.queues: dict[str, list[str]] = json.loads(said.stdout)

    def start_workers(self, count: int = 2) -> None:
        self.workers = [self._start("work") for _ in range(count)]

    def replace_worker(self, number: int = 0) -> None:
        """Kills a worker with all its processes, and starts another one at once, as a service manager does."""
        kill_tree(self.workers[number])
        self.workers[number] = self._start("work")

    def children(self) -> list[int]:
        """The first worker's child processes that run jobs: the youngest generation, none of the helpers."""
        return [pid for pid in descendants(self.workers[0].pid) if not descendants(pid) and "tracker" not in command_of(pid)]

    def publish(self, load: Load, **environ: str) -> None:
        self.publisher = self._start("publish", str(load.first), str(load.jobs), str(load.rate), **environ)

    def replace_publisher(self, load: Load) -> None:
        """Kills it; another one goes on."""
        if self.publisher is not None and self.publisher.poll() is None:
            kill_tree(self.publisher)
            self.resume_publishing(load)

    def resume_publishing(self, load: Load) -> None:
        """With another process, behind the last job that is known to be there."""
        first = max(self.ledger.count(PUBLISHED, load.numbers), default=load.first - 1) + 1
        self.publish(Load(load.numbers.stop - first, load.rate, first))

    def stop_publishing(self) -> None:
        """When the job that it is at is published."""
        if self.publisher is not None and self.publisher.poll() is None:
            self.publisher.terminate()

    def has_published(self) -> bool:
        return self.publisher is None or self.publisher.poll() is not None

    def unfinished(self, load: Load) -> set[int]:
        """Jobs that are published and have had no effect."""
        published, effects = self.ledger.count(PUBLISHED, load.numbers), self.ledger.count(EFFECT, load.numbers)
        return set(published) - set(effects)

    def has_started(self, load: Load, *, least: int = 1) -> bool:
        return len(self.ledger.count(STARTED, load.numbers)) >= least

    def end(self) -> None:
        for process in [*self.workers, *filter(None, [self.publisher])]:
            kill_tree(process)

    def _command(self, *words: str) -> list[str]:
        return [self.python, "-m", f"tests.faults.systems.{self.name}", *words]

    def _environ(self, **more: str) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RMQJOBS_")}
        faults = {"FAULTS_URL": self.url, "FAULTS_LEDGER": str(self.ledger.path), "FAULTS_PREFIX": self.prefix}
        return mine | faults | {"PYTHONUNBUFFERED": "1"} | more

    def _start(self, *words: str, **environ: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{words[0]}.log").open("ab") as output:
            return subprocess.Popen(
                self._command(*words),
                env=self._environ(**environ),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


def descendants(pid: int) -> list[int]:
    """All processes below it, by what the kernel says."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, generation = [], [pid]
    while generation:
        generation = [child for child, parent in parents.items() if parent in generation]
        found += generation
    return found


def command_of(pid: int) -> str:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    return ""


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and all below it with -9, as a machine that dies does."""
    if process.poll() is None:
        pids = [process.pid, *descendants(process.pid)]
        process.send_signal(signal.SIGSTOP)  # nobody is started again meanwhile
        send(signal.SIGKILL, pids)
    process.wait()


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def until(condition: Callable[[], Any], seconds: float) -> bool:
    """Whether it is so within this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
