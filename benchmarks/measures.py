"""What is measured of a system: publishing, draining, latency, growth. Each in a run of its own, checked for exactly once."""

from __future__ import annotations

import statistics
import time
from array import array
from dataclasses import dataclass, replace

from benchmarks.runs import Drained, Place, Published, Run, Variant, Void, running

ONE_BY_ONE = 1_000  # jobs of a cycle that are published singly
WARM_UP = 100  # jobs before latency counts
SETTLING = 15.0  # seconds in which a broker writes and tidies up what a million messages leave
IDLE_FOR = 60.0  # seconds that an idle scheduler is watched: the kernel counts its CPU in steps of ten milliseconds
IDLE_AFTER = 2.0  # seconds after which a worker has started
RETRY_DELAY = 1.0  # seconds, see `systems.rmqjobs`


@dataclass(frozen=True)
class Cycle:
    """Publish, then drain what was published.

    Args:
        one: Each confirmed before the next.
        many: The quickest way.
        drained: By one worker.
        first: Seconds from the start of the worker's command to its first job.
    """

    one: Published
    many: Published
    drained: Drained
    first: float


def cycle(place: Place, variant: Variant) -> Cycle:
    """One cycle."""
    with running(place, variant, variant.jobs) as run:
        one = run.publish("one", 0, ONE_BY_ONE)
        many = run.publish("many", ONE_BY_ONE, variant.jobs - ONE_BY_ONE)
        drained = run.drain()
        began = max(run.ledger.beginning(), run.work_began)
        return Cycle(one, many, drained, min(run.ledger.start_times()) - began)


def latency(place: Place, variant: Variant, jobs: int, rate: float) -> tuple[float, float]:
    """Milliseconds from just before publishing to the start, at `rate` jobs a second: median and 99th percentile."""
    with running(place, variant, WARM_UP + jobs) as run:
        run.start_worker()
        run.publish("one", 0, WARM_UP)
        run.wait(WARM_UP)
        run.publish("paced", WARM_UP, jobs, rate)
        run.wait(WARM_UP + jobs)
        waits = _differences(run.ledger.publish_times(), run.ledger.start_times(), WARM_UP)
    return statistics.median(waits) * 1000, statistics.quantiles(waits, n=100)[98] * 1000


def idle_scheduler(place: Place, variant: Variant) -> tuple[float, float]:
    """Peak memory in MB, and CPU seconds an hour, of a scheduler with a hundred schedules, none of them due."""
    run = Run(place, variant, 1)
    try:
        run.prepare()
        run.start_worker("schedule")
        time.sleep(IDLE_AFTER * 2)
        cpu = run.worker_cpu()
        time.sleep(IDLE_FOR)
        if not run.worker_peak():
            raise Void(f"{variant.name}: the scheduler ended")
        return run.worker_peak(), (run.worker_cpu() - cpu) / IDLE_FOR * 3600
    finally:
        run.end()


def retries(place: Place, jobs: int) -> float:
    """Jobs a second that fail once, wait on the ladder and run again: until the last one has, minus the delay itself."""
    variant = Variant("rmqjobs, each job fails once", "rmqjobs", {"BENCH_POOL": "fail"}, jobs)
    with running(place, variant, jobs) as run:
        run.publish("many", 0, jobs)
        run.start_worker()
        run.wait(jobs)
        began = min(run.ledger.publish_times())  # noted by the first attempt
        return jobs / (max(run.ledger.start_times()) - began - RETRY_DELAY)


@dataclass(frozen=True)
class Delayed:
    """Jobs that were published with a delay.

    Args:
        rate: Jobs published a second.
        worker_cpu: CPU seconds a second that the worker used while they waited.
        late_median, late_99, late_most: Seconds after their time.
    """

    rate: float
    worker_cpu: float
    late_median: float
    late_99: float
    late_most: float


def delayed(place: Place, jobs: int, *, least: float, most: float, pause: float) -> Delayed:
    """Publishes by the thousand, pausing after each, with delays of `least` to `most` seconds, while a worker is there."""
    environ = {"BENCH_POOL": "later", "BENCH_LEAST": str(least), "BENCH_MOST": str(most), "BENCH_PAUSE": str(pause)}
    variant = Variant("rmqjobs, delayed", "rmqjobs", environ, jobs)
    with running(place, variant, jobs) as run:
        run.start_worker()
        time.sleep(IDLE_AFTER)
        cpu, began = run.worker_cpu(), time.time()
        publisher = run.start_publishing("many", 0, jobs)
        time.sleep(least - 1)
        if run.ledger.done():
            raise Void("some came before their time")
        worker_cpu = (run.worker_cpu() - cpu) / (time.time() - began)
        run.wait(jobs, patience=most)
        published = publisher()
        late = _differences(run.ledger.publish_times(), run.ledger.start_times(), 0)
    if min(late) < -0.01:  # noqa: PLR2004 - clocks of two processes
        raise Void(f"a job came {-min(late):.2f} s before its time")
    return Delayed(published.rate, worker_cpu, statistics.median(late), statistics.quantiles(late, n=100)[98], max(late))


def backlog(place: Place, waiting: int, portion: int, rounds: int) -> list[float]:
    """Jobs a second, of the first `portion` that each of several workers drains while about `waiting` wait."""
    variant = Variant("rmqjobs, a backlog", "rmqjobs", jobs=waiting)
    run = Run(place, variant, waiting)
    rates = []
    try:
        run.prepare()
        run.publish("many", 0, waiting)
        time.sleep(SETTLING)
        for _ in range(rounds):
            before = run.ledger.done()
            run.start_worker()
            run.wait(before + portion)
            started = sorted(time for time in run.ledger.start_times() if time >= run.work_began)[:portion]
            rates.append(portion / (started[-1] - started[0]))
            run.end()
        run.start_worker()  # the rest, so that each ran once can be checked
        run.wait(waiting)
    finally:
        run.end()
    run.check()
    return rates


def with_environ(variant: Variant, **environ: str) -> Variant:
    """The variant, with further `BENCH_…` variables."""
    return replace(variant, environ={**variant.environ, **environ})


def _differences(earlier: array[float], later: array[float], first: int) -> list[float]:
    return [late - early for early, late in zip(earlier[first:], later[first:], strict=True)]
