"""Back-pressure: what our processes use while far more waits than they can hold. `make soak` runs it, in about ten minutes.

A million jobs are published, wait and are drained: an hour's work at 300 a second. A hundred thousand dead letters are
reviewed. The broker is blocked, and a queue is full. Memory and CPU are read from the kernel, of real processes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
from rich.console import Console
from rich.table import Table

from rmqjobs import Publisher, Settings
from rmqjobs.errors import BrokerBlocked, PublishError, PublishRefused
from rmqjobs.testing.broker import PrivateNode, free_port
from tests.acceptance.helpers import Refused, Stand, Void, stand
from tests.helpers import wait

MEGABYTE = 2**20
GROWTH_LIMIT = 40 * MEGABYTE  # of a process, from a tenth of its work to the end
BLOCKED_FOR = 10.0
FLAT = 5 * MEGABYTE  # likewise, of a process in which nothing of a job may stay
CHUNK = 10_000
BACKLOG = 30_000
IDLE_CPU = 0.1  # seconds of CPU a second that a process may use while it can do nothing
out = Console(highlight=False)


@dataclass
class Watch:
    """Samples one process's memory and CPU."""

    pid: int
    sizes: list[int] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def growth(self) -> int:
        """From a tenth of the time to the end."""
        return max(self.sizes[len(self.sizes) // 10 :], default=0) - self.sizes[len(self.sizes) // 10] if self.sizes else 0

    @property
    def peak(self) -> int:
        return max(self.sizes, default=0)


@contextmanager
def watching(pid: int) -> Iterator[Watch]:
    watch, ended, before = Watch(pid), threading.Event(), cpu_of(pid)

    def sample() -> None:
        while not ended.wait(0.2):
            watch.sizes.append(memory_of(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        watch.cpu = cpu_of(pid) - before


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * resource.getpagesize()


def cpu_of(pid: int) -> float:
    """Seconds so far."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Soak:
    """The phases, and a table of what each process used."""

    def __init__(self, here: Stand, node: PrivateNode) -> None:
        self._here, self._node = here, node
        self._settings = Settings(url=here.url, prefix=here.prefix)
        self._failures: list[str] = []
        self.table = Table("what", "process", "done", "a second", "peak MB", "growth MB", box=None)

    def million(self, count: int) -> None:
        """Published, waiting, drained."""
        with Publisher(settings=self._settings) as jobs, watching(os.getpid()) as publishing:
            began = time.monotonic()
            for first in range(0, count, CHUNK):  # `publish_many` returns every id
                jobs.publish_many(Void(n=n) for n in range(first, first + CHUNK))
        self._row("published", "publisher", count, time.monotonic() - began, publishing)
        began = time.monotonic()
        worker = self._here.worker()
        with watching(worker.pid) as working:
            wait(lambda: self._messages("accept") == 0, 1_800)
        self._row(f"drained, {count:,} waiting", "worker", count, time.monotonic() - began, working)
        self._end(worker)

    def steady(self, count: int) -> None:
        """Published and drained at once, for as long as that takes: nothing of a job stays in either process."""
        port = free_port()
        worker = self._here.worker("--metrics-port", str(port))
        asker = pika.BlockingConnection(pika.URLParameters(self._here.url)).channel()
        began = time.monotonic()
        with Publisher(settings=self._settings) as jobs, watching(worker.pid) as working, watching(os.getpid()) as publishing:
            for first in range(0, count, CHUNK):
                jobs.publish_many(Void(n=n) for n in range(first, first + CHUNK))
                while self._ready(asker) > BACKLOG:
                    time.sleep(0.1)
            wait(lambda: self._ready(asker) == 0, 600)
        seconds = time.monotonic() - began
        for who, watch in (("worker", working), ("publisher", publishing)):
            self._row("published and drained", who, count, seconds, watch)
            self._expect(watch.growth < FLAT, f"{who} grew by {watch.growth / MEGABYTE:.1f} MB")
        wait(lambda: _processed(port) >= count)
        self._expect(_processed(port) == count, f"{_processed(port):,} runs of {count:,} jobs")
        self._end(worker)

    def _ready(self, channel: Any) -> int:
        return int(channel.queue_declare(f"{self._here.prefix}.accept", passive=True).method.message_count)

    def dead_letters(self, count: int) -> None:
        """Given up, listed, counted, replayed."""
        with Publisher(settings=self._settings) as jobs:
            jobs.publish_many(Refused(n=n) for n in range(count))
        worker, began = self._here.worker(), time.monotonic()
        with watching(worker.pid) as working:
            wait(lambda: self._messages("accept.dead") == count, 1_800)
        self._row("given up", "worker", count, time.monotonic() - began, working)
        self._end(worker)
        for command in (("list", "--limit", "20"), ("stats",), ("replay", "--all", "--yes", "--limit", "1000")):
            self._command(count, "dlq", *command)

    def blocked(self) -> None:
        """The broker takes nothing: errors in time, and no busy loop."""
        worker = self._here.worker()
        hurried = self._settings.model_copy(update={"publish_timeout": timedelta(seconds=1)})
        with Publisher(settings=hurried) as jobs:
            jobs.publish(Void(n=0))
            self._node.ctl("set_vm_memory_high_watermark", "0")
            with watching(worker.pid) as working, watching(os.getpid()) as publishing:
                ended, errors = time.monotonic() + BLOCKED_FOR, 0
                while time.monotonic() < ended:
                    try:
                        jobs.publish(Void(n=1))
                    except BrokerBlocked:
                        errors += 1
            self._node.ctl("set_vm_memory_high_watermark", "0.6")
            jobs.publish(Void(n=2))
        self._expect(errors >= BLOCKED_FOR / 2, f"only {errors} times BrokerBlocked")
        for who, watch in (("worker", working), ("publisher", publishing)):
            self._row(f"broker blocked for {BLOCKED_FOR:g} s", who, errors, BLOCKED_FOR, watch)
            self._expect(watch.cpu < IDLE_CPU * BLOCKED_FOR, f"{who}: {watch.cpu:.2f} s of CPU while blocked")
        self._end(worker)

    def full(self) -> None:
        """A queue at its length limit refuses publishers; the rest is not held up."""
        self._node.ctl("set_policy", "full", f"^{self._here.prefix}.accept$", '{"max-length": 1000}', "--apply-to", "queues")
        accepted = refused = 0
        with Publisher(settings=self._settings) as jobs, watching(os.getpid()) as publishing:
            began = time.monotonic()
            for n in range(5_000):
                try:
                    jobs.publish(Void(n=n))
                    accepted += 1
                except PublishRefused:
                    refused += 1
                except PublishError as error:
                    self._failures.append(f"a full queue gave {error!r}")
        self._row(f"queue full: {refused:,} refused", "publisher", 5_000, time.monotonic() - began, publishing)
        self._expect(refused > 0, "a full queue refused nobody")
        wait(lambda: self._messages("accept") == accepted)  # all that was confirmed, and nothing else
        self._node.ctl("clear_policy", "full")
        worker = self._here.worker()
        wait(lambda: self._messages("accept") == 0)
        self._end(worker)

    def finish(self) -> int:
        out.print(self.table)
        for failure in self._failures:
            out.print(f"failed: {failure}")
        return 1 if self._failures else 0

    def _command(self, count: int, *words: str) -> None:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "rmqjobs", *words], env=self._here.environ, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        self._row(" ".join(words), "operator", count, time.monotonic() - began, Watch(process.pid, [usage.ru_maxrss * 1024]))
        self._expect(status == 0, f"{' '.join(words)} ended with {status}")

    def _messages(self, queue: str) -> int:
        rows = self._node.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        counts = dict(row.split("\t") for row in rows)
        return int(counts.get(f"{self._here.prefix}.{queue}", 0))

    def _row(self, what: str, who: str, count: int, seconds: float, watch: Watch) -> None:
        rate = f"{count / seconds:,.0f}"
        self.table.add_row(what, who, f"{count:,}", rate, f"{watch.peak / MEGABYTE:.0f}", f"{watch.growth / MEGABYTE:.1f}")
        out.print(f"{what}: {seconds:.0f} s")
        self._expect(watch.growth < GROWTH_LIMIT, f"{what}: {who} grew by {watch.growth / MEGABYTE:.0f} MB")

    def _expect(self, holds: bool, failure: str) -> None:
        if not holds:
            self._failures.append(failure)

    def _end(self, worker: subprocess.Popen[bytes]) -> None:
        worker.terminate()
        self._expect(worker.wait(60) == 0, "a worker did not drain")


def _processed(port: int) -> int:
    """Jobs that the worker at this port has settled."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("rmqjobs_jobs_processed_total")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def main() -> None:
    """Runs all phases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--dead", type=int, default=100_000)
    parser.add_argument("--steady", type=int, metavar="JOBS", help="only this: so many, published and drained at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        node = PrivateNode(Path(folder) / "broker")
        node.start()
        try:
            with stand(Path(folder), node.url, "soak") as here:
                soak = Soak(here, node)
                if options.steady:
                    soak.steady(options.steady)
                    sys.exit(soak.finish())
                soak.blocked()
                soak.full()
                soak.dead_letters(options.dead)
                soak.million(options.jobs)
                sys.exit(soak.finish())
        finally:
            node.remove()


if __name__ == "__main__":
    main()
