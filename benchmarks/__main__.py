"""`make bench`: rmqjobs beside its peers and a bare loop, in one run; `make bench-quick` in two minutes, without the page.

Rounds are interleaved, numbers are medians, and each is void unless every job of its run ran exactly once.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmarks import measures
from benchmarks.measures import Cycle
from benchmarks.place import meeting_place, versions_of_peers
from benchmarks.report import Table, of, write
from benchmarks.runs import ROOT, Place, Variant, Void
from benchmarks.tables import OURS, drained, from_threads, published, started, times, waited

PAGE = ROOT / "docs" / "explanation" / "performance.md"
MANY = 60_000  # jobs of the quick ones
RATE = 100  # jobs a second, for latency
BARE = "bare pika loop"
out = Console(highlight=False, soft_wrap=True)
ResultT = TypeVar("ResultT")

ONE_PROCESS = (
    Variant(OURS, "rmqjobs", jobs=MANY),
    Variant(BARE, "bare", {"BENCH_PREFETCH": "1000"}, MANY),
    Variant("Celery, prefork", "celery"),
    Variant("Celery, 8 threads", "celery", {"BENCH_POOL": "thread"}),
    Variant("Dramatiq, 8 threads", "dramatiq", jobs=10_000),
    Variant("taskiq", "taskiq", jobs=10_000),
    Variant("FastStream", "faststream", jobs=10_000),
)
EAGER = Variant("Dramatiq, 8 threads, prefetch 1000", "dramatiq", {"BENCH_PREFETCH": "1000"}, 10_000)
BULLMQ = Variant("BullMQ on Redis", "bullmq", jobs=20_000)
POOLS = (
    Variant(f"{OURS}, 8 threads", "rmqjobs", {"BENCH_POOL": "thread"}, MANY),
    Variant("Dramatiq, 8 threads", "dramatiq", jobs=10_000),
    Variant("Celery, 8 threads", "celery", {"BENCH_POOL": "thread"}),
    Variant("FastStream, threads", "faststream", {"BENCH_POOL": "thread"}),
    Variant(f"{OURS}, 2 child processes", "rmqjobs", {"BENCH_POOL": "process"}, 15_000),
    Variant("Celery, prefork of 2", "celery", {"BENCH_POOL": "process"}),
    Variant("taskiq, process pool of 2", "taskiq", {"BENCH_POOL": "process"}),
)
BLOCKING = {"BENCH_POOL": "thread", "BENCH_BLOCK": "0.02", "BENCH_AS_IT_COMES": "1"}
QUICK_STARTS = (
    Variant(OURS, "rmqjobs", BLOCKING, 4_000),
    Variant("Dramatiq", "dramatiq", BLOCKING, 4_000),
    Variant("taskiq", "taskiq", BLOCKING, 4_000),
)
SCALED = tuple(
    Variant(f"{name}, {count} processes", system, {"BENCH_PROCESSES": str(count)}, jobs)
    for count in (2, 4)
    for name, system, jobs in (
        (OURS, "rmqjobs", MANY),
        ("Celery", "celery", 6_000),
        ("Dramatiq", "dramatiq", 10_000),
        ("taskiq", "taskiq", 10_000),
        ("FastStream", "faststream", 10_000),
    )
)
PUBLISHERS = (
    Variant(f"{OURS}, Publisher, 1 and 16 threads", "rmqjobs", {"BENCH_SYNCHRONOUS": "1"}, 20_000),
    Variant(f"{BARE}, 1 and 16 in flight", "bare", {"BENCH_WINDOW": "16"}, 20_000),
    Variant("Dramatiq, 1 thread", "dramatiq", jobs=5_000),
)
SETTINGS: tuple[tuple[str, dict[str, str]], ...] = (
    ("by default: prefetch 200, acknowledgements wait up to 2 ms for others", {}),
    ("acknowledgements at once", {"BENCH_ACK_DELAY": "0"}),
    ("prefetch 2", {"BENCH_CONCURRENCY": "1"}),
    ("prefetch 1,000", {"BENCH_CONCURRENCY": "500"}),
)


class Bench:
    """Runs the measures.

    Args:
        place: The brokers.
        rounds: How many of each measure.
        scale: Factor for the numbers of jobs.
    """

    def __init__(self, place: Place, rounds: int, scale: float) -> None:
        self._place, self._rounds, self._scale = place, rounds, scale
        self.void: list[str] = []

    def cycles(self, variants: Sequence[Variant]) -> dict[str, list[Cycle]]:
        """Cycles of all variants, interleaved: one round of all, then the next."""
        scaled = [replace(each, jobs=max(int(each.jobs * self._scale), 2_000)) for each in variants]
        return self._interleaved({each.name: partial(measures.cycle, self._place, each) for each in scaled})

    def latencies(self, variants: Sequence[tuple[str, Variant]]) -> dict[str, list[tuple[float, float]]]:
        """Latencies of all variants, interleaved in the same way."""
        jobs = max(int(500 * self._scale), 300)
        return self._interleaved({name: partial(measures.latency, self._place, each, jobs, RATE) for name, each in variants})

    def schedulers(self, variants: Sequence[Variant]) -> dict[str, list[tuple[float, float]]]:
        """Measures idle schedulers once each: they take long, and differ little."""
        idle = partial(measures.idle_scheduler, self._place)
        return self._interleaved({each.name: partial(idle, each) for each in variants}, rounds=1)

    def once(self, what: str, measure: Callable[[], ResultT]) -> ResultT | None:
        """Measures once what takes long; None when that is void."""
        return next(iter(self._interleaved({what: measure}, rounds=1)[what]), None)

    def _interleaved(self, measured: dict[str, Callable[[], ResultT]], rounds: int | None = None) -> dict[str, list[ResultT]]:
        found: dict[str, list[ResultT]] = {name: [] for name in measured}
        for number in range(rounds or self._rounds):
            for name, measure in measured.items():
                began = time.monotonic()
                try:
                    found[name].append(measure())
                except Void as error:
                    self.void.append(f"{name}, round {number + 1}: {error}")
                    out.print(f"void: {error}", style="red", markup=False)
                out.print(f"  {name}: {time.monotonic() - began:.0f} s", style="dim", markup=False)
        return found


def grown(bench: Bench, place: Place) -> Table:
    """What changes with more jobs."""
    table = Table("Cost of growth", ["", "measured"])
    few = bench.once("100,000 waiting", lambda: measures.backlog(place, 100_000, 40_000, 2))
    many = bench.once("1,000,000 waiting", lambda: measures.backlog(place, 1_000_000, 40_000, 3))
    if few and many:
        ratio = statistics.median(many) / statistics.median(few)
        table.rows.append(["40,000 jobs drained, a second, with 100,000 waiting", of(few)])
        table.rows.append(["the same with 1,000,000 waiting", f"{of(many)}, {times(ratio)} that"])
    again = bench.once("retries", lambda: measures.retries(place, 20_000))
    if again:
        table.rows.append(["20,000 jobs fail, wait a second on the ladder and run again, a second", f"{again:,.0f}"])
    late = bench.once("delayed", lambda: measures.delayed(place, 100_000, least=20, most=60, pause=1))
    if late:
        what = "100,000 jobs, 1,000 a second, each delayed by 20 to 60 s: seconds late, median, 99 %, most"
        table.rows.append([what, f"{late.late_median:.2f}, {late.late_99:.2f}, {late.late_most:.2f}"])
        table.rows.append(["meanwhile the worker's CPU, of one core", f"{late.worker_cpu:.1%}"])
    return table


def quick(bench: Bench) -> list[Table]:
    """The tables that change most often."""
    cycles, blocking, publishers = bench.cycles(ONE_PROCESS), bench.cycles(QUICK_STARTS), bench.cycles(PUBLISHERS)
    latency = bench.latencies([(each.name, each) for each in ONE_PROCESS if each.name in (OURS, BARE, "Dramatiq, 8 threads")])
    return [
        drained("Draining no-op jobs, one process", cycles, [OURS]),
        drained("As it comes: handlers that block for 20 ms, each worker started as its quick start says", blocking, [OURS]),
        published(cycles),
        from_threads(publishers),
        waited(latency, f"Latency at {RATE} jobs a second"),
    ]


def everything(bench: Bench, place: Place) -> list[Table]:
    """All tables of the page."""
    singles = bench.cycles([*ONE_PROCESS, EAGER, *([BULLMQ] if place.redis else [])])
    pools, scaled, publishers = bench.cycles(POOLS), bench.cycles(SCALED), bench.cycles(PUBLISHERS)
    blocking = bench.cycles(QUICK_STARTS)
    compared = [each for each in [*ONE_PROCESS, BULLMQ] if each.name in singles]
    latency = bench.latencies([(each.name, each) for each in compared])
    settings = bench.latencies([(what, measures.with_environ(ONE_PROCESS[0], **environ)) for what, environ in SETTINGS])
    schedulers = Table("An idle scheduler with a hundred schedules", ["", "peak MB", "CPU seconds an hour"])
    with_schedulers = [Variant(OURS, "rmqjobs"), Variant("Celery beat", "celery"), Variant("taskiq scheduler", "taskiq")]
    for name, rounds in bench.schedulers(with_schedulers).items():
        schedulers.rows.append([name, of([each[0] for each in rounds], "{:.0f}"), of([each[1] for each in rounds], "{:.0f}")])
    threads, children = POOLS[0].name, POOLS[4].name
    return [
        drained("Draining no-op jobs, one process", singles, [OURS]),
        drained("Synchronous handlers: threads, and child processes", pools, [threads, children]),
        drained("As it comes: handlers that block for 20 ms, each worker started as its quick start says", blocking, [OURS]),
        drained("Two and four worker processes", scaled, [f"{OURS}, 2 processes", f"{OURS}, 4 processes"]),
        published(singles),
        from_threads(publishers),
        waited(latency, f"Latency at {RATE} jobs a second, from publishing to the start"),
        waited(settings, "What prefetch costs: the same latency"),
        schedulers,
        started(5),
        grown(bench, place),
    ]


def pythons(bench: Bench, others: Sequence[str]) -> Table:
    """The same worker on other interpreters, each with rmqjobs, psutil and uvloop installed, and on uvloop."""
    variants = [
        replace(ONE_PROCESS[0], name=f"{_version_of(python)}{loop}", python=python, environ=environ)
        for python in (sys.executable, *others)
        for loop, environ in (("", {}), (", uvloop", {"BENCH_EVENT_LOOP": "uvloop"}))
    ]
    return drained("Interpreters and event loops", bench.cycles(variants), [])


def _version_of(python: str) -> str:
    return subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Runs the benchmark and prints the tables; a full run also writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round, and no page")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--pythons", nargs="*", metavar="PYTHON", help="only this interpreter and these, each also on uvloop; no page"
    )
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, meeting_place(Path(folder)) as (place, broker):
        where = f"{broker}; CPython {platform.python_version()}, {os.cpu_count()} cores; {versions_of_peers()}."
        out.print(where, style="dim")
        bench = Bench(place, 2 if options.quick else options.rounds, 0.5 if options.quick else 1.0)
        if options.pythons is not None:
            tables = [pythons(bench, options.pythons)]
        else:
            tables = quick(bench) if options.quick else everything(bench, place)
    for table in tables:
        table.print(out)
    if not options.quick and options.pythons is None:
        write(PAGE, f"{where} {options.rounds} interleaved rounds, medians (and spans).", tables)
        out.print(f"written to {PAGE.relative_to(ROOT)}")
    out.print(f"{time.monotonic() - began:.0f} s")
    if bench.void:
        sys.exit(f"{len(bench.void)} numbers are void")


if __name__ == "__main__":
    main()
