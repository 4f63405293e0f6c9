"""Reports what happens to jobs: one record in the journal for each, and a log line for what went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from pydantic_core import from_json

from rmqjobs.events import Event, EventKind
from rmqjobs.failures import failure_of, shortened
from rmqjobs.job import Job
from rmqjobs.journal import Journal
from rmqjobs.retry import Cancelled, Dead, Done, RetryIn, Returned, Skipped, Snoozed, Verdict
from rmqjobs.wire.values import Json, is_brief
from rmqjobs.worker.case import Case
from rmqjobs.worker.figures import Figures

log = logging.getLogger("rmqjobs.worker")
job_log = logging.getLogger("rmqjobs.job")

_KINDS: Mapping[type, tuple[EventKind, int]] = {  # kind in the journal, level in the log
    Done: (EventKind.SUCCEEDED, logging.DEBUG),
    RetryIn: (EventKind.RETRIED, logging.WARNING),
    Snoozed: (EventKind.SNOOZED, logging.INFO),
    Returned: (EventKind.RETURNED, logging.WARNING),
    Dead: (EventKind.DEAD, logging.ERROR),
    Skipped: (EventKind.SKIPPED, logging.WARNING),
    Cancelled: (EventKind.CANCELLED, logging.WARNING),
}
_NUMBERS = frozenset({int, float, bool})  # the quick way for the most common results
MAX_ERROR = 500  # characters
# Names the logging module keeps for itself.
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Chronicle:
    """Writes what happens to jobs to the journal, the figures and the log.

    Args:
        journal: Takes the records.
        figures: Counts jobs for the metrics.
        now: The time of day, aware.
    """

    def __init__(self, journal: Journal, figures: Figures, now: Callable[[], datetime]) -> None:
        self._journal, self._figures, self._now = journal, figures, now

    def tell(self, case: Case, verdict: Verdict, *, settled: bool) -> None:
        """Reports how a run of a job ended."""
        kind, level = _KINDS[type(verdict)]
        data = {} if case.error is None else _about(verdict, case.error, self._now())
        if case.run is not None:
            data["seconds"] = case.run.seconds
        if (result := case.result) is not None:
            if type(result) in _NUMBERS:
                data["result"] = result
            else:
                data |= _result(result)
        if not settled:
            hint = "it will be settled if it comes back here; another worker that gets it runs it again"
            log.warning("job ended after its channel was lost", extra={"job": case.job_id, **data, "hint": hint})
            return
        self._record(case, kind, data)
        self._figures.count(case, kind, data.get("reason"))
        if log.isEnabledFor(level):
            log.log(level, "job %s", kind.value, extra={"job": case.job_id, "type": case.job_type, **data})

    def report(self, job: Job, kind: str, data: Mapping[str, JsonValue]) -> None:
        """Takes what a handler reports while it runs; callable from any thread."""
        if kind == "checkpoint":  # travels in the message
            return
        if kind == "log":
            fields = {name: value for name, value in data.items() if name not in _TAKEN}
            job_log.info(str(data["message"]), extra={"job": job.id, "type": job.type, **fields})
        self._journal.record(Event(EventKind(kind), self._now(), job.id, job.type, job.queue, job.attempt, data))

    def unscheduled(self, seconds: float) -> None:
        """Reports that schedules exist and no scheduler runs."""
        hint = "start one with: rmqjobs scheduler"
        log.error("no scheduler is active: schedules do not tick", extra={"seconds": round(seconds, 1), "hint": hint})
        data: dict[str, JsonValue] = {"seconds": round(seconds, 1)}
        self._journal.record(Event(EventKind.UNSCHEDULED, self._now(), "", "", data=data))

    def blocked(self, handler: str, line: str, seconds: float) -> None:
        """Reports that the event loop does not move; called from another thread."""
        hint = "use await, or pool='thread' or pool='process'" if handler else "no handler is on its stack"
        extra = {"handler": handler or None, "at": line, "seconds": round(seconds, 2), "hint": hint}
        log.warning("the event loop is blocked: no other job moves, no heartbeat is sent", extra=extra)

    async def announce(self, open_cases: Iterable[Case], interval: timedelta) -> None:
        """Records the start of runs that outlive an interval, until cancelled; for shorter ones, their end is enough."""
        while True:
            await asyncio.sleep(interval.total_seconds())
            for case in open_cases:
                if not case.announced and case.running is not None and case.running.elapsed >= interval.total_seconds():
                    case.announced = True
                    self._record(case, EventKind.STARTED, {}, self._now() - timedelta(seconds=case.running.elapsed))

    def _record(self, case: Case, kind: EventKind, data: Mapping[str, JsonValue], at: datetime | None = None) -> None:
        attempt = case.envelope.job.attempt if case.run and case.envelope else 0
        self._journal.record(Event(kind, at or self._now(), case.job_id, case.job_type, case.delivery.queue, attempt, data))


def _result(result: object) -> dict[str, Any]:
    if not is_brief(result):
        return {"result_left_out": True}
    return {"result": from_json(result) if isinstance(result, Json) else result}


def _about(verdict: Verdict, error: BaseException, now: datetime) -> dict[str, Any]:
    data: dict[str, Any] = {"error": shortened(str(failure_of(error, traceback=False)), MAX_ERROR)}
    match verdict:
        case RetryIn(delay, counters):
            data |= {"in_seconds": round(delay.total_seconds(), 3), "next_attempt": counters.attempt}
        case Snoozed(until, delay):
            wait = delay if delay is not None else (until - now if until is not None else timedelta(0))
            data["in_seconds"] = round(max(wait, timedelta(0)).total_seconds(), 3)
        case Dead(reason):
            data["reason"] = reason.value
        case Skipped(reason):
            data["reason"] = reason
    return data
