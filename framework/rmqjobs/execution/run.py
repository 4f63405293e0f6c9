"""One run of a handler, and how to stop it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

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
        seconds: How long it took, to the microsecond; 0 until it has ended.
    """

    handler: Handler
    payload: Payload
    body: bytes
    job: Job
    stopped_by: Exception | None = None
    seconds: float = 0.0
    _began: int | None = None  # monotonic, in nanoseconds
    _stopper: Callable[[Exception], object] | None = field(default=None, repr=False)
    _complaint: asyncio.TimerHandle | None = field(default=None, repr=False)

    def wait(self, stopper: Callable[[Exception], object]) -> None:
        """The run waits in its pool; `stopper` ends that if it is stopped before it begins."""
        self._stopper = stopper
        if self.stopped_by is not None:
            stopper(self.stopped_by)

    def begin(self, stopper: Callable[[Exception], object]) -> None:
        """Starts its time; from here on it can be stopped, and `stopper` is how the pool does that."""
        self._began, self._stopper = time.monotonic_ns(), stopper
        if self.stopped_by is not None:  # before it began
            stopper(self.stopped_by)

    def stop(self, error: Exception) -> None:
        """Stops the run as far as its pool can; it then ends with this error. The first stop counts."""
        if self.stopped_by is not None:
            return
        self.stopped_by = error
        self.job.cancelled = True
        if self._stopper is None:
            return
        self._complaint = asyncio.get_running_loop().call_later(STUBBORN_AFTER, self._name_stubborn)
        self._stopper(error)

    def end(self) -> None:
        """Ends its time; it cannot be stopped any more. Harmless when it has ended already."""
        if self._began is not None:
            self.seconds = self._elapsed_us() / 1_000_000
        self._began = self._stopper = None
        if self._complaint is not None:
            self._complaint.cancel()
            self._complaint = None

    def call(self) -> object:
        """Calls the handler function: a result, or a coroutine of one."""
        if self.handler.wants_job:
            return self.handler.function(self.payload, self.job)
        return self.handler.function(self.payload)

    @property
    def elapsed(self) -> float:
        """Seconds since it began; 0 before that and after its end."""
        return self._elapsed_us() / 1_000_000

    @property
    def is_overdue(self) -> bool:
        """Whether its time is up."""
        return self.elapsed >= self.handler.max_runtime.total_seconds()

    def stop_overdue(self) -> None:
        """Stops the run because its time is up."""
        limit = self.handler.max_runtime
        self.stop(TimeLimitExceeded(f"{self.handler.name} ran longer than its max_runtime of {limit}"))

    def _elapsed_us(self) -> int:
        return 0 if self._began is None else (time.monotonic_ns() - self._began) // 1000

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
