"""What a worker counts for its metrics: plain numbers while jobs run, metric families only when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from typing import Any

from rmqjobs.events import EventKind
from rmqjobs.probes import cumulative
from rmqjobs.worker.case import Case

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)  # seconds of a run


@dataclass(slots=True)
class _Tally:
    jobs: int = 0
    seconds: float = 0.0  # of their runs
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))  # runs by their length

    def add(self, other: _Tally) -> None:
        self.jobs += other.jobs
        self.seconds += other.seconds
        self.buckets = list(map(add, self.buckets, other.buckets))


class Figures:
    """The collector of a worker's metrics.

    Args:
        now_values: Gives name, help text and present value of what only the worker itself knows.
    """

    def __init__(self, now_values: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        self._now_values = now_values
        self._tallies: defaultdict[tuple[str, str, EventKind], _Tally] = defaultdict(_Tally)
        self._dead: Counter[tuple[str, str]] = Counter()

    def count(self, case: Case, kind: EventKind, reason: object) -> None:
        """Counts one settled job."""
        job_type = case.job_type if case.handler else ""  # a type nobody knows must not become a label
        tally = self._tallies[case.delivery.queue, job_type, kind]
        tally.jobs += 1
        if case.run is not None:
            tally.seconds += case.run.seconds
            tally.buckets[bisect_left(BUCKETS, case.run.seconds)] += 1
        if kind is EventKind.DEAD:
            self._dead[case.delivery.queue, str(reason)] += 1

    def collect(self) -> Iterable[Any]:
        """The metric families."""
        from prometheus_client.core import (  # noqa: PLC0415 - only where somebody scrapes
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for name, text, value in self._now_values():
            yield GaugeMetricFamily(name, text, value=value)
        processed = CounterMetricFamily(
            "rmqjobs_jobs_processed", "Jobs by what became of them", labels=["queue", "type", "verdict"]
        )
        durations: defaultdict[str, _Tally] = defaultdict(_Tally)  # of a type, whatever the verdict
        for (queue, job_type, kind), tally in list(self._tallies.items()):
            processed.add_metric((queue, job_type, kind.value), tally.jobs)
            durations[job_type].add(tally)
        yield processed
        dead = CounterMetricFamily("rmqjobs_dead_letters", "Jobs given up", labels=["queue", "reason"])
        for labels_of_dead, count in list(self._dead.items()):
            dead.add_metric(labels_of_dead, count)
        yield dead
        duration = HistogramMetricFamily("rmqjobs_job_duration_seconds", "How long runs took", labels=["type"])
        for job_type, tally in durations.items():
            if any(tally.buckets):
                duration.add_metric([job_type], cumulative(BUCKETS, tally.buckets), tally.seconds)
        yield duration
