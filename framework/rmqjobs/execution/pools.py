"""The pools of one worker, each made when its first job comes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from datetime import timedelta
from typing import Any, Protocol

from rmqjobs.execution.loop import LoopPool
from rmqjobs.execution.processes import ProcessPool, Recycle, is_importable
from rmqjobs.execution.run import Run
from rmqjobs.execution.threads import ThreadPool
from rmqjobs.job import Pool

_ISOLATED = None  # the pool of runs that have a child to themselves


class RunsHandlers(Protocol):
    """What every pool does."""

    async def run(self, run: Run) -> object:
        """The handler's result; raises its exception, or the error that it was stopped with."""

    async def stack_of(self, run: Run) -> list[str]:
        """Where the handler is, outermost first; empty when that is not known."""

    async def close(self) -> None:
        """Ends what the pool keeps open."""


class Pools:
    """Runs handlers where they belong.

    Args:
        threads: Number of threads.
        children: Number of child processes.
        recycle: When a child process is replaced.
        lease: How long a child that runs a singleton goes on without a sign of life from this process.
        modules: What child processes import before their first job.
    """

    def __init__(
        self,
        *,
        threads: int,
        children: int = 2,
        recycle: Recycle | None = None,
        lease: timedelta = timedelta(seconds=20),
        modules: Iterable[str] = (),
    ) -> None:
        self._threads, self._children, self._recycle, self._lease = threads, children, recycle or Recycle(), lease
        self._modules = tuple(dict.fromkeys(modules))
        self._pools: dict[Pool | None, RunsHandlers] = {}

    def run(self, run: Run, *, isolated: bool = False) -> Coroutine[Any, Any, object]:
        """Runs the handler; if `isolated`, in a child of its own whatever its pool, provided that a child can import it."""
        pool = _ISOLATED if isolated and is_importable(run.handler) else run.handler.pool
        runner = self._pools.get(pool)
        if runner is None:
            runner = self._pools[pool] = self._make(pool)
        return runner.run(run)

    def shed(self, error: Exception, *, keep: int = 0) -> None:
        """Stops runs that wait for a child process, with this error, except `keep` of them at each child."""
        pool = self._pools.get(Pool.PROCESS)
        if isinstance(pool, ProcessPool):
            pool.shed(error, keep=keep)

    async def stack_of(self, run: Run) -> list[str]:
        """Where the handler of a run is, as `execution.stacks` writes it; empty when that is not known."""
        for pool in self._pools.values():
            if found := await pool.stack_of(run):
                return found
        return []

    async def close(self) -> None:
        """Ends threads and children."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        self._pools.clear()

    def _make(self, pool: Pool | None) -> RunsHandlers:
        match pool:
            case None:
                return ProcessPool(1, self._recycle, self._lease, modules=self._modules, most=1)
            case Pool.ASYNC:
                return LoopPool()
            case Pool.THREAD:
                return ThreadPool(self._threads)
            case Pool.PROCESS:
                return ProcessPool(self._children, self._recycle, self._lease, modules=self._modules)
