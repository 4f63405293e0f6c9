"""The process pool: one job at a time in each child, killed for certain, and a dead child costs its job alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rmqjobs.errors import ChildDied
from rmqjobs.execution import frames
from rmqjobs.execution.run import Run
from rmqjobs.job import Handler

log = logging.getLogger("rmqjobs.execution")


@dataclass(slots=True, eq=False)
class _Child:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    watcher: asyncio.Task[None] = field(init=False)
    runs: int = 0
    killed: bool = False

    def __post_init__(self) -> None:
        self.watcher = asyncio.create_task(self.watch())

    def kill(self) -> None:
        """Ends the child and everything it has started, also when it is dead already: it leads a session of its own."""
        if not self.killed:  # once, and soon after its death: later the number may be somebody else's
            self.killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def watch(self) -> None:
        """Takes what it has started down with it: somebody of its group may hold its socket open."""
        await self.process.wait()
        self.kill()

    async def ended(self) -> str:
        """Waits for its end and says how it came."""
        code = await self.process.wait()
        await self.watcher
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


@dataclass(frozen=True, slots=True)
class Recycle:
    """When a child is replaced, after a job.

    Args:
        jobs: It has run so many.
        peak_bytes: It has once used so much memory.
    """

    jobs: int = 1_000
    peak_bytes: int = 2**30


class ProcessPool:
    """Keeps idle children warm; the caller bounds how many run at once.

    Args:
        recycle: When a child is replaced, so that leaks stay small.
        lease: A child that runs a singleton ends itself when it hears nothing for so long: this process may be frozen, the
            broker has given the job to another worker, and nobody is left to kill the child.
    """

    def __init__(self, recycle: Recycle, lease: timedelta) -> None:
        self._recycle, self._lease = recycle, lease
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    async def run(self, run: Run) -> object:
        """The handler's result as JSON values, its exception as a `RemoteError`, or what it was stopped by.

        Raises:
            ChildDied: The child died by itself.
        """
        lease = self._lease.total_seconds() if run.handler.singleton else None
        order = frames.pack({**_order(run), "lease": lease}, run.body)
        child = self._take_idle() or await _start_child()
        self._busy.add(child)
        run.begin(lambda _error: child.kill())
        signs = asyncio.create_task(_give_signs_of_life(child, lease)) if lease else None
        try:
            child.writer.write(order)
            answer = await self._answer(child, run)
        except BaseException:
            child.kill()  # nobody will read its answer
            raise
        finally:
            run.end()
            self._busy.discard(child)
            if signs is not None:
                signs.cancel()
        if answer is None:
            how = await child.ended()
            raise run.stopped_by or ChildDied(f"the process of {run.handler.name} {how}")
        await self._keep(child, answer.get("peak_bytes", 0))
        if "signal" in answer:
            raise frames.error_of(answer)
        return answer["result"]

    async def close(self) -> None:
        """Ends all children."""
        children = [*self._idle, *self._busy]
        self._idle.clear()
        for child in children:
            child.kill()
        await asyncio.gather(*(child.ended() for child in children))

    async def _answer(self, child: _Child, run: Run) -> frames.Head | None:
        """The final frame; reports before it go to the job. None when the child is dead."""
        while (frame := await frames.read(child.reader)) is not None:
            head, _ = frame
            if "report" not in head:
                return head
            if head["report"] == "checkpoint":
                run.job.state = head["data"]["state"]
            run.job.reporter(run.job, head["report"], head["data"])
        child.kill()  # it closed its socket: whatever is left of it cannot answer
        return None

    def _take_idle(self) -> _Child | None:
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None and not child.killed:
                return child
        return None

    async def _keep(self, child: _Child, peak_bytes: int) -> None:
        child.runs += 1
        if child.runs < self._recycle.jobs and peak_bytes < self._recycle.peak_bytes and child.process.returncode is None:
            self._idle.append(child)
            return
        log.debug("child replaced", extra={"child": child.process.pid, "jobs": child.runs, "peak_bytes": peak_bytes})
        child.kill()
        await child.ended()


async def _give_signs_of_life(child: _Child, lease: float) -> None:
    while True:
        await asyncio.sleep(lease / 4)
        child.writer.write(frames.pack({"alive": True}))


def is_importable(handler: Handler) -> bool:
    """Whether a child process can find the handler's function and payload by name."""
    return "<locals>" not in handler.function.__qualname__ + handler.payload_type.__qualname__


async def _start_child() -> _Child:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rmqjobs.execution.child",
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    log.debug("child started", extra={"child": process.pid})
    return _Child(process, reader, writer)


def _order(run: Run) -> dict[str, Any]:
    handler, job = run.handler, run.job
    return {
        "function": _reference(handler.function),
        "payload": _reference(handler.payload_type),
        "wants_job": handler.wants_job,
        "job": {
            "id": job.id,
            "type": job.type,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "queue": job.queue,
            "published_at": job.published_at and job.published_at.isoformat(),
            "schedule": job.schedule,
            "scheduled_for": job.scheduled_for and job.scheduled_for.isoformat(),
            "period_start": job.period_start and job.period_start.isoformat(),
            "correlation_id": job.correlation_id,
            "headers": dict(job.headers),
            "state": job.state,
        },
    }


def _reference(thing: Callable[..., Any] | type) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"
