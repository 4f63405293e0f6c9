"""One run of a handler, and how to stop it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from rmqjobs.errors import TimeLimitExceeded
from rmqjobs.job import Handler, Job, Payload

log = logging.getLogger("rmqjobs.execution")

STUBBORN_AFTER = 5.0  # seconds after which a run that ignores its stop is named in the log


@dataclass(slots=True, eq=False)
class Run:
    """One run of a handler.

    Args:
        handler: What runs.
        payload: Its validated payload.
        body: The same as JSON, for a child process.
        job: What the handler sees.
        stopped_by: Why it was stopped, if it was.
    """

    handler: Handler
    payload: Payload
    body: bytes
    job: Job
    stopped_by: Exception | None = None
    _stopper: Callable[[Exception], object] | None = field(default=None, repr=False)
    _timers: list[asyncio.TimerHandle] = field(default_factory=list, repr=False)

    def begin(self, stopper: Callable[[Exception], object]) -> None:
        """Starts the clock of `max_runtime`; `stopper` is how the pool stops a run."""
        self._stopper = stopper
        if self.stopped_by is not None:  # before it began
            stopper(self.stopped_by)
        limit = self.handler.max_runtime
        timer = asyncio.get_running_loop().call_later(limit.total_seconds(), self._out_of_time, limit)
        self._timers.append(timer)

    def stop(self, error: Exception) -> None:
        """Stops the run as far as its pool can; it then ends with this error. The first stop counts."""
        if self.stopped_by is not None:
            return
        self.stopped_by = error
        self.job.cancelled = True
        if self._stopper is None:
            return
        self._timers.append(asyncio.get_running_loop().call_later(STUBBORN_AFTER, self._name_stubborn))
        self._stopper(error)

    def end(self) -> None:
        """Stops the clocks."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._stopper = None

    def call(self) -> object:
        """Calls the handler function: a result, or a coroutine of one."""
        if self.handler.wants_job:
            return self.handler.function(self.payload, self.job)
        return self.handler.function(self.payload)

    def _out_of_time(self, limit: timedelta) -> None:
        self.stop(TimeLimitExceeded(f"{self.handler.name} ran longer than its max_runtime of {limit}"))

    def _name_stubborn(self) -> None:
        log.warning(
            "run does not stop",
            extra={
                "handler": self.handler.name,
                "job": self.job.id,
                "pool": self.handler.pool.value,
                "because": str(self.stopped_by),
                "hint": "its slot stays taken until it returns; pool='process' can be stopped for certain",
            },
        )
