"""What a worker counts for its metrics: plain numbers while jobs run, metric families only when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from rmqjobs.events import EventKind
from rmqjobs.probes import cumulative
from rmqjobs.worker.case import Case

BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)  # seconds of a run


class Figures:
    """The collector of a worker's metrics.

    Args:
        now_values: Name, help text and present value of what only the worker itself knows.
    """

    def __init__(self, now_values: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        self._now_values = now_values
        self._processed: Counter[tuple[str, str, str]] = Counter()
        self._dead: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def count(self, case: Case, kind: EventKind, reason: object) -> None:
        """One settled job."""
        job_type = case.handler.job_type if case.handler else ""  # a type nobody knows must not become a label
        self._processed[case.delivery.queue, job_type, kind.value] += 1
        if kind is EventKind.DEAD:
            self._dead[case.delivery.queue, str(reason)] += 1
        if case.run is not None:
            buckets = self._buckets.get(job_type)
            if buckets is None:
                buckets = self._buckets[job_type] = [0] * (len(BUCKETS) + 1)
            buckets[bisect_left(BUCKETS, case.seconds)] += 1
            self._seconds[job_type] += case.seconds  # type: ignore[assignment]

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
        for labels, count in list(self._processed.items()):
            processed.add_metric(labels, count)
        yield processed
        dead = CounterMetricFamily("rmqjobs_dead_letters", "Jobs given up", labels=["queue", "reason"])
        for labels_of_dead, count in list(self._dead.items()):
            dead.add_metric(labels_of_dead, count)
        yield dead
        duration = HistogramMetricFamily("rmqjobs_job_duration_seconds", "How long runs took", labels=["type"])
        for job_type, buckets in list(self._buckets.items()):
            duration.add_metric([job_type], cumulative(BUCKETS, buckets), self._seconds[job_type])
        yield duration
