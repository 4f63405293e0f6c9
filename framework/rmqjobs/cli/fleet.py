"""`rmqjobs worker --processes N`: whole workers under one parent that only supervises. It loads no plugin and runs no job.

A worker that dies is started again, with growing pauses; signals are passed on; when the parent itself is killed, the workers
drain by themselves. The parent is to its workers what systemd is to the parent: they speak the same protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rmqjobs.cli import notify
from rmqjobs.cli.errors import FAILED, USAGE
from rmqjobs.cli.signals import ENDED_NOW, PARENT_PIPE, stop_by_signal
from rmqjobs.machine import sizes
from rmqjobs.settings import Settings, environment_name

log = logging.getLogger("rmqjobs.fleet")

FIRST_PAUSE, LONGEST_PAUSE, LIVED = 0.5, 30.0, 60.0  # seconds
LOOK_EVERY = 0.5
# Workers read no settings file: what it has is in the settings already.
_WORKER = (sys.executable, "-m", "rmqjobs", "worker", "--config", os.devnull)
SPARE = timedelta(seconds=10)  # beyond grace and publish_timeout, before a worker that does not end is killed


@dataclass(slots=True, eq=False)
class _Member:
    """One place in the fleet, and the worker that has it now."""

    number: int
    process: asyncio.subprocess.Process | None = None
    heard_at: float | None = None
    ready: bool = False
    pause: float = FIRST_PAUSE

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Fleet:
    """Keeps a number of workers running.

    Args:
        settings: Settings of each worker.
        options: Command-line options that are not settings.
        init: There is one worker, and it is not replaced: this process is only there because a container's first one must
            pass on signals and collect processes that others leave behind.
    """

    def __init__(self, settings: Settings, options: Sequence[str], *, init: bool = False) -> None:
        self._settings, self._options, self._init = settings, options, init
        self._sizes = sizes(settings)
        self._members = [_Member(number) for number in range(self._sizes.processes)]
        self._manager = notify.Notifier(os.environ)
        self._stopping = False
        self._code = 0

    async def run(self) -> int:
        """Works until told to stop; returns the exit code."""
        stop = stop_by_signal("second signal: ending now; running jobs go to other workers", self._kill)
        if not self._init and (code := await self._check()):
            return code
        with _pipe() as pipe:
            async with self._listening() as address, self._manager.alive(self._is_ready):
                keepers = [asyncio.create_task(self._keep(each, address, pipe)) for each in self._members]
                beside = [asyncio.create_task(self._look()), asyncio.create_task(stop.wait())]
                await asyncio.wait((beside[-1], *keepers), return_when=asyncio.FIRST_COMPLETED)
                await self._stop()
                for task in beside:
                    task.cancel()
                await asyncio.gather(*keepers, *beside, return_exceptions=True)
        return self._code

    async def _check(self) -> int:
        """Loads the plugins once, in a process of its own: errors in them are reported once, and no worker is started."""
        environ = self._environ(self._members[0], "", -1)
        process = await asyncio.create_subprocess_exec(*_WORKER, "--check", *self._options, env=environ)
        return await process.wait()

    async def _keep(self, member: _Member, address: str, pipe: int) -> None:
        """Runs one worker after the other."""
        while not self._stopping:
            started = time.monotonic()
            code = await self._live(member, address, pipe)
            member.ready = False
            if self._stopping and code == -signal.SIGTERM:
                return  # told to stop before it had begun
            if self._init or self._stopping or code == USAGE:  # starting again does not make a wrong setting right
                self._code = self._code or _exit_code(code)
                self._stopping = True
                return
            if time.monotonic() - started > LIVED:
                member.pause = FIRST_PAUSE
            extra = {"worker": member.number, "code": code, "again_in_seconds": member.pause}
            log.error("worker died", extra=extra)
            deadline = time.monotonic() + member.pause
            member.pause = min(member.pause * 2, LONGEST_PAUSE)
            while not self._stopping and time.monotonic() < deadline:
                await asyncio.sleep(0.1)

    async def _live(self, member: _Member, address: str, pipe: int) -> int:
        """Runs one worker, and returns its exit code. One that cannot even be started counts as having died at once."""
        try:
            member.process = await self._start(member, address, pipe)
        except OSError as error:
            log.error("a worker cannot be started", extra={"because": str(error)})  # noqa: TRY400 - the sentence says it
            return FAILED
        if self._stopping:  # told to stop while it was being started
            member.send(signal.SIGTERM)
        return await member.process.wait()

    async def _start(self, member: _Member, address: str, pipe: int) -> asyncio.subprocess.Process:
        member.heard_at = None
        process = await asyncio.create_subprocess_exec(
            *_WORKER,
            *self._options,
            env=self._environ(member, address, pipe),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(pipe,),
            start_new_session=True,  # a terminal's Ctrl-C reaches only the parent
        )
        log.info("worker started", extra={"worker": member.number, "pid": process.pid})
        return process

    def _environ(self, member: _Member, address: str, pipe: int) -> dict[str, str]:
        """The environment of a worker. Settings go there, because everybody can read a command line."""
        port = self._settings.metrics_port
        # The sizes suit the machine for all workers together.
        at_once = {"threads": self._sizes.threads, "children": self._sizes.children}
        mine = {"processes": 1, **at_once, "metrics_port": port + member.number if port else port}
        replaced = {notify.SOCKET, notify.WATCHDOG_PID, *map(environment_name, Settings.model_fields)}
        kept = {name: value for name, value in os.environ.items() if name not in replaced}
        ours = {PARENT_PIPE: str(pipe), notify.SOCKET: f"{address}.{member.number}"}
        return kept | self._settings.model_copy(update=mine).as_environ() | ours

    # -- what the workers say

    def _is_ready(self) -> bool:
        return all(each.ready for each in self._members)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[str]:
        """Opens a socket for each worker to say how it is."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as sockets:
            try:
                folder = sockets.enter_context(tempfile.TemporaryDirectory(prefix="rmqjobs-"))
                address = str(Path(folder) / "notify")
            except OSError:  # a container that can write nowhere: Linux has names that are not files
                address = f"@rmqjobs-{os.getpid()}"
            for member in self._members:
                line = sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                line.bind(notify.address_of(f"{address}.{member.number}"))
                line.setblocking(False)
                loop.add_reader(line, self._hear, member, line)
                sockets.callback(loop.remove_reader, line)
            yield address

    def _hear(self, member: _Member, line: socket.socket) -> None:
        words = line.recv(4096).decode(errors="replace").splitlines()
        member.heard_at = time.monotonic()
        member.ready = member.ready or notify.READY in words

    async def _look(self) -> None:
        """Kills a worker that gives no sign of life; as a container's first process, collects what others leave behind."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            limit = self._manager.watchdog
            for member in self._members:
                if limit and member.heard_at and time.monotonic() - member.heard_at > limit.total_seconds():
                    log.error("worker gives no sign of life", extra={"worker": member.number, "limit": str(limit)})
                    member.send(signal.SIGKILL)
            if os.getpid() == 1:
                _reap({each.process.pid for each in self._members if each.process})

    # -- the end

    async def _stop(self) -> None:
        self._stopping = True
        self._manager.say(notify.STOPPING)
        for member in self._members:
            member.send(signal.SIGTERM)
        limit = self._settings.grace + self._settings.publish_timeout + SPARE
        running = [each.process.wait() for each in self._members if each.process]
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await asyncio.gather(*running)
        except TimeoutError:
            log.error("a worker does not end: it is killed", extra={"limit": str(limit)})  # noqa: TRY400 - the sentence says it
            self._code = ENDED_NOW
            self._kill()

    def _kill(self) -> None:
        for member in self._members:
            member.send(signal.SIGKILL)


@contextlib.contextmanager
def _pipe() -> Iterator[int]:
    """The end of a pipe that workers hold; the other end is closed when this process ends, for whatever reason."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def _exit_code(code: int) -> int:
    """The exit code as a shell gives it: 128 plus the signal for a process that was killed."""
    return code if code >= 0 else 128 - code


def _reap(ours: set[int]) -> None:
    """Collects ended processes that were left to this one; that happens only to a container's first process."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in ours:
            os.waitpid(ended.si_pid, 0)
