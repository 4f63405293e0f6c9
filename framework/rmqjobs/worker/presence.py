"""How a worker is, for operators and the journal: its state, what it runs, its memory, how late its event loop is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from heapq import nlargest
from typing import Any

from pydantic import JsonValue

from rmqjobs.execution import Run
from rmqjobs.worker.case import Case

NAMED, MOST_NAMED = 20, 100  # running jobs in a beat, and in an answer: those that have run longest


class Presence:
    """Makes the reports.

    Args:
        facts: What does not change: queues, slots, plugins.
        state: What it does now: starting, ready, draining or stopped.
        cases: Jobs that are open.
        stack_of: Where the handler of a run is.
        paused: Paused queues, and why.
        lag: The longest time in seconds that the event loop was late lately.
    """

    def __init__(
        self,
        facts: dict[str, JsonValue],
        *,
        state: Callable[[], str],
        cases: Callable[[], Iterable[Case]],
        stack_of: Callable[[Run], Awaitable[list[str]]],
        paused: Callable[[], dict[str, str]],
        lag: Callable[[], float],
    ) -> None:
        self._facts, self._state, self._cases, self._stack_of = facts, state, cases, stack_of
        self._paused, self._lag = paused, lag

    def report(self, named: int = NAMED) -> dict[str, Any]:
        """How it is now, with the names of so many running jobs."""
        running = [case for case in list(self._cases()) if case.running]
        return {
            "state": self._state(),
            **self._facts,
            "paused": self._paused(),
            "running": len(running),
            "jobs": [_job(case) for case in nlargest(named, running, key=_elapsed)],
            "loop_lag_seconds": round(self._lag(), 3),
        }

    async def stacks(self) -> list[dict[str, Any]]:
        """The jobs of the report, each with the stack of its handler."""
        running = nlargest(MOST_NAMED, (case for case in list(self._cases()) if case.running), key=_elapsed)
        jobs = [(_job(case), case.running) for case in running]
        return [job | {"stack": await self._stack_of(run)} for job, run in jobs if run is not None]


def _elapsed(case: Case) -> float:
    return case.running.elapsed if case.running else 0.0


def _job(case: Case) -> dict[str, Any]:
    limit = case.handler.max_runtime.total_seconds() if case.handler else None
    attempt = case.envelope.job.attempt if case.envelope else 0
    place = {"id": case.job_id, "type": case.job_type, "queue": case.delivery.queue, "attempt": attempt}
    return place | {"elapsed_seconds": round(_elapsed(case), 3), "limit_seconds": limit}
