"""Reports what the scheduler does: a line in the log, a record in the journal, a figure for the metrics."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue

from rmqjobs.events import Event, EventKind
from rmqjobs.journal import Journal
from rmqjobs.probes import cumulative
from rmqjobs.schedule import Schedule
from rmqjobs.scheduler.plan import Missed, Tick
from rmqjobs.wire.scheduling import tick_id

log = logging.getLogger("rmqjobs.scheduler")

LATE_AFTER = timedelta(seconds=5)
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0)  # seconds of lateness


class Chronicle:
    """Logs, records and counts what the scheduler does.

    Args:
        journal: Takes the records.
        now: The time of day, aware.
    """

    def __init__(self, journal: Journal, now: Callable[[], datetime]) -> None:
        self._journal, self._now = journal, now
        self.active = False
        self.schedules = 0
        self.ticks: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.events: Counter[EventKind] = Counter()
        self.succeeded_at: dict[str, float] = {}
        self.overdue: set[str] = set()
        self.expecting: set[str] = set()
        self.lateness = [0] * (len(BUCKETS) + 1)
        self.lateness_sum = 0.0

    def ticked(self, schedule: Schedule, tick: Tick, job_id: str, *, now: datetime) -> float:
        """Reports a tick that was published; returns how many seconds late it was."""
        late = max((now - tick.due).total_seconds(), 0.0)
        self.ticks[schedule.name] += 1
        self.lateness[bisect_left(BUCKETS, late)] += 1
        self.lateness_sum += late
        data: dict[str, JsonValue] = {"scheduled_for": tick.planned.isoformat(), "late_seconds": round(late, 3)}
        kind = EventKind.LATE if late > LATE_AFTER.total_seconds() else EventKind.TICKED
        level = logging.WARNING if kind is EventKind.LATE else logging.DEBUG
        self.tell(kind, schedule, level=level, job_id=job_id, **data)
        return late

    def misfired(self, schedule: Schedule, missed: Missed) -> None:
        """Reports planned times that passed while nobody could tick."""
        self.missed[schedule.name] += missed.count
        data: dict[str, JsonValue] = {"missed": missed.count, "dropped": missed.dropped, "policy": schedule.misfire.value}
        period: dict[str, JsonValue] = {"first": missed.first.isoformat(), "last": missed.last.isoformat()}
        job_id = tick_id(schedule.name, missed.last)
        self.tell(EventKind.MISFIRED, schedule, level=logging.WARNING, job_id=job_id, **data, **period)

    def tell(
        self,
        kind: EventKind,
        schedule: Schedule | None = None,
        *,
        level: int = logging.INFO,
        job_id: str = "",
        **data: JsonValue,
    ) -> None:
        """Logs, records and counts one event."""
        self.events[kind] += 1
        about: dict[str, Any] = {"schedule": schedule.name} if schedule else {}
        kept: dict[str, Any] = {**about, **data}
        if log.isEnabledFor(level):
            log.log(level, "scheduler %s" if schedule is None else "schedule %s", kind.value, extra=kept)
        job_type = schedule.type if schedule else ""
        self._journal.record(Event(kind, self._now(), job_id, job_type, data=kept))

    def collect(self) -> Iterable[Any]:
        """The metric families, for prometheus-client."""
        from prometheus_client.core import (  # noqa: PLC0415 - only where somebody scrapes
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        yield GaugeMetricFamily("rmqjobs_scheduler_active", "1 while this scheduler is the active one", value=self.active)
        yield GaugeMetricFamily("rmqjobs_schedules", "Schedules this scheduler knows", value=self.schedules)
        late = HistogramMetricFamily("rmqjobs_schedule_lateness_seconds", "From a tick's time to its publication")
        late.add_metric([], cumulative(BUCKETS, self.lateness), self.lateness_sum)
        yield late
        for name, counts, text in (
            ("rmqjobs_schedule_ticks", self.ticks, "Ticks published"),
            ("rmqjobs_schedule_missed", self.missed, "Planned times missed beyond the grace"),
        ):
            family = CounterMetricFamily(name, text, labels=["schedule"])
            for schedule, count in list(counts.items()):
                family.add_metric([schedule], count)
            yield family
        happened = CounterMetricFamily("rmqjobs_scheduler_events", "Events of this scheduler", labels=["kind"])
        for kind, count in list(self.events.items()):
            happened.add_metric([kind.value], count)
        yield happened
        success = GaugeMetricFamily("rmqjobs_schedule_success_timestamp_seconds", "Last success", labels=["schedule"])
        for schedule, at in list(self.succeeded_at.items()):
            success.add_metric([schedule], at)
        yield success
        overdue = GaugeMetricFamily("rmqjobs_schedule_overdue", "1 while no expected success has come", labels=["schedule"])
        for schedule in sorted(self.expecting | self.overdue):
            overdue.add_metric([schedule], schedule in self.overdue)
        yield overdue
