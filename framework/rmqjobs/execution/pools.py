"""The pools of one worker, each made when its first job comes."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Protocol

from rmqjobs.execution.loop import LoopPool
from rmqjobs.execution.processes import ProcessPool, Recycle, is_importable
from rmqjobs.execution.run import Run
from rmqjobs.execution.threads import ThreadPool
from rmqjobs.job import Pool

LOOK_EVERY = 0.1  # seconds by which a time limit can be late


class RunsHandlers(Protocol):
    """What every pool does."""

    async def run(self, run: Run) -> object:
        """The handler's result; raises its exception, or what it was stopped by."""

    async def close(self) -> None:
        """Ends what the pool keeps open."""


class Pools:
    """Runs handlers where they belong.

    Args:
        threads: Number of threads.
        recycle: When a child process is replaced.
        lease: For how long a child that runs a singleton goes on without a sign of life of this process.
    """

    def __init__(self, *, threads: int, recycle: Recycle | None = None, lease: timedelta = timedelta(seconds=20)) -> None:
        self._threads, self._recycle, self._lease = threads, recycle or Recycle(), lease
        self._clock = time.monotonic
        self._pools: dict[Pool, RunsHandlers] = {}
        self._deadlines: dict[Run, float] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, run: Run, *, isolated: bool = False) -> object:
        """Runs the handler; `isolated` in a child process whatever its pool, if a child can import it."""
        pool = Pool.PROCESS if isolated and is_importable(run.handler) else run.handler.pool
        runner = self._pools.get(pool)
        if runner is None:
            runner = self._pools[pool] = self._make(pool)
        self._deadlines[run] = self._clock() + run.handler.max_runtime.total_seconds()
        if self._looking is None:
            self._look()
        try:
            return await runner.run(run)
        finally:
            del self._deadlines[run]

    async def close(self) -> None:
        """Ends threads and children."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        self._pools.clear()

    def _look(self) -> None:
        """Stops what is out of time. One look at all of them, now and then, costs less than a timer for each."""
        now = self._clock()
        for run in [run for run, deadline in self._deadlines.items() if deadline <= now]:
            run.stop_overdue()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(LOOK_EVERY, self._look) if self._deadlines else None

    def _make(self, pool: Pool) -> RunsHandlers:
        match pool:
            case Pool.ASYNC:
                return LoopPool()
            case Pool.THREAD:
                return ThreadPool(self._threads)
            case Pool.PROCESS:
                return ProcessPool(self._recycle, self._lease)
