"""Time limits: stops the runs that are out of time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from rmqjobs.execution.pools import Pools
from rmqjobs.execution.run import Run

log = logging.getLogger("rmqjobs.execution")

LOOK_EVERY = 0.1  # seconds by which a time limit can be late


async def keep_limits(runs: Callable[[], Iterable[Run]]) -> None:
    """Stops overdue runs until cancelled. Looking at all runs now and then costs less than a timer for each.

    Args:
        runs: Gives those that have not ended.
    """
    while True:
        await asyncio.sleep(LOOK_EVERY)
        for run in [run for run in runs() if run.is_overdue]:
            try:
                run.stop_overdue()
            except Exception:
                log.exception("a run cannot be stopped", extra={"handler": run.handler.name, "job": run.job.id})


async def run_alone(pools: Pools, run: Run) -> object:
    """The result of one run, with its time limit kept; for callers that run nothing else."""
    limits = asyncio.create_task(keep_limits(lambda: [run]))
    try:
        return await pools.run(run)
    finally:
        limits.cancel()
