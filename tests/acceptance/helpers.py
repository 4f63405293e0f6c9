"""Real processes: a plugin installed as a distribution, the command line, and the effects it leaves in a file."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rmqjobs import Payload, Settings
from tests.helpers import wait

PLUGIN = '''
import os, subprocess, time, asyncio
from datetime import timedelta
from rmqjobs import Job, Payload, Plugin, Reject, RetryPolicy, hookimpl

class Mark(Payload, type="accept.mark"):
    n: int
    seconds: float = 0

class Heavy(Payload, type="accept.heavy"):
    n: int
    seconds: float = 0
    leaves: str = ""

class Void(Payload, type="accept.void"):
    n: int

class Refused(Payload, type="accept.refused"):
    n: int

class Tick(Payload, type="accept.tick"):
    """Writes which tick it is."""

class Fatal(Payload, type="accept.fatal"):
    """Kills the worker that runs it on its loop."""

def write(text):
    descriptor = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)

def hello(name: str = "you"):
    """Says hello: a command that a plugin brings."""
    print(f"hello {name}")

class Commands:
    @hookimpl
    def rmqjobs_commands(self):
        return {"hello": hello}

plugin = Plugin("accept", retry=RetryPolicy(max_attempts=2, first_delay=timedelta(seconds=1)), hooks=[Commands()])

@plugin.handler
async def mark(payload: Mark, job: Job) -> None:
    if payload.n < 0:
        raise ValueError("negative")
    await asyncio.sleep(payload.seconds)
    write(f"{payload.n} {job.attempt}")

@plugin.handler(pool="process")
def heavy(payload: Heavy, job: Job) -> None:
    write(f"pid {os.getpid()}")
    time.sleep(payload.seconds)
    if payload.leaves:
        subprocess.Popen(["sh", "-c", f"({payload.leaves}) & exit"], start_new_session=True).wait()
    write(f"{payload.n} {job.attempt}")

@plugin.handler
async def void(payload: Void) -> None: ...

@plugin.handler
async def refuse(payload: Refused) -> None:
    raise Reject("on purpose")

@plugin.handler(queue="accept.ticks")
async def tick(payload: Tick, job: Job) -> None:
    write(f"tick {job.id} {time.time():.3f}")

@plugin.handler(queue="accept.fatal")
async def fatal(payload: Fatal) -> None:
    os.kill(os.getpid(), 9)
'''


class Mark(Payload, type="accept.mark"):
    n: int
    seconds: float = 0


class Heavy(Payload, type="accept.heavy"):
    n: int
    seconds: float = 0
    leaves: str = ""


class Fatal(Payload, type="accept.fatal"): ...


class Void(Payload, type="accept.void"):
    n: int


class Refused(Payload, type="accept.refused"):
    n: int


@dataclass
class Stand:
    """One test's processes, plugin and broker."""

    folder: Path
    url: str
    prefix: str
    event_loop: str = "asyncio"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        info = self.folder / "site" / "rmqjobs_accept-1.0.dist-info"
        info.mkdir(parents=True)
        (self.folder / "site" / "rmqjobs_accept.py").write_text(PLUGIN)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rmqjobs-accept\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[rmqjobs.plugins]\naccept = rmqjobs_accept:plugin\n")

    @property
    def environ(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RMQJOBS_")}
        return mine | {
            "PYTHONPATH": str(self.folder / "site"),
            "EFFECTS": str(self.folder / "effects"),
            "RMQJOBS_URL": self.url,
            "RMQJOBS_PREFIX": self.prefix,
            "RMQJOBS_LOG_FORMAT": "json",
            "RMQJOBS_EVENT_LOOP": self.event_loop,
        }

    @property
    def settings(self) -> Settings:
        return Settings(url=self.url, prefix=self.prefix)

    @property
    def effects(self) -> list[str]:
        path = self.folder / "effects"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def marks(self) -> list[int]:
        """Numbers of the jobs that ran to their end, in that order."""
        return [int(line.split()[0]) for line in self.effects if not line.startswith(("pid", "tick"))]

    def worker(self, *options: str, ready: int = 1) -> subprocess.Popen[bytes]:
        """`rmqjobs worker --plugin accept`, ready; with several processes, all of them."""
        process = self.start("worker", "--plugin", "accept", *options)
        wait(lambda: self.log_of(process).count("worker ready") == ready or process.poll() is not None)
        assert process.poll() is None, self.log_of(process)
        return process

    def worker_that_dies(self) -> int:
        """A worker that is about to be killed by its job; its exit code."""
        return self.start("worker", "--plugin", "accept").wait(timeout=30)

    def start(self, *arguments: str, within: Sequence[str] = (), **environ: str) -> subprocess.Popen[bytes]:
        """A command that goes on, perhaps started by another program."""
        with (self.folder / f"process-{len(self.processes)}.log").open("wb") as output:
            command = [*within, sys.executable, "-m", "rmqjobs", *arguments]
            process = subprocess.Popen(command, env=self.environ | environ, stdout=output, stderr=output, cwd=self.folder)
        self.processes.append(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"process-{self.processes.index(process)}.log").read_text(errors="replace")

    def cli(
        self, *arguments: str, code: int = 0, stdin: str = "", cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """A command that must end with this exit code."""
        ran = subprocess.run(
            [sys.executable, "-m", "rmqjobs", *arguments],
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=cwd,
        )
        assert ran.returncode == code, f"exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def stand(folder: Path, url: str, prefix: str, event_loop: str = "asyncio") -> Iterator[Stand]:
    made = Stand(folder, url, prefix, event_loop)
    try:
        yield made
    finally:
        made.end()
