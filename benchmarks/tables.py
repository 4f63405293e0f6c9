"""Makes tables of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import starting
from benchmarks.measures import Cycle
from benchmarks.report import Table, of

OURS = "rmqjobs"
COSTS = ("CPU s per 10,000", "broker's CPU", "peak MB", "first job after s")
Cycles = Mapping[str, Sequence[Cycle]]
Pairs = Mapping[str, Sequence[tuple[float, float]]]


def times(ratio: float) -> str:
    """A ratio."""
    return f"{ratio:.2f} times"


def drained(title: str, cycles: Cycles, against: Sequence[str]) -> Table:
    """Jobs drained a second by each system, and how many times as quick the systems in `against` are."""
    columns = ["", "jobs a second", *(f"{name} is" for name in against), *COSTS]
    table = Table(title, columns)
    rates = {name: statistics.median(each.drained.rate for each in found) for name, found in cycles.items() if found}
    for name, rate in rates.items():
        runs = [each.drained for each in cycles[name]]
        table.rows.append(
            [
                name,
                of([run.rate for run in runs]),
                *(times(rates[ours] / rate) if ours in rates else "" for ours in against),
                of([run.cpu for run in runs], "{:.2f}"),
                of([run.broker for run in runs], "{:.2f}"),
                of([run.peak for run in runs], "{:.0f}"),
                of([each.first for each in cycles[name]], "{:.2f}"),
            ]
        )
    return table


def published(cycles: Cycles) -> Table:
    """Jobs published a second."""
    table = Table(
        "Publishing, confirmed",
        ["", "one by one, a second", f"{OURS} is", "many, a second", f"{OURS} is", "CPU s per 10,000", "peak MB"],
        remark="`many` is the quickest way each has: `publish_many` of 10,000 here, a window of 1,000 in the bare loop, 500 at"
        " once for taskiq and FastStream, bulk for BullMQ; Celery and Dramatiq have none. CPU and memory are those of `many`.",
    )
    ours = cycles.get(OURS, [])
    for name, found in cycles.items():
        if not found:
            continue
        row = [name]
        for how in ("one", "many"):
            rates = [getattr(each, how).rate for each in found]
            mine = [getattr(each, how).rate for each in ours]
            row += [of(rates), times(statistics.median(mine) / statistics.median(rates)) if mine else ""]
        row += [of([each.many.cpu for each in found], "{:.2f}"), of([each.many.peak for each in found], "{:.0f}")]
        table.rows.append(row)
    return table


def from_threads(cycles: Cycles) -> Table:
    """Jobs published a second by the synchronous publisher."""
    columns = ["", "1, a second", "CPU s per 10,000", "16, a second", "ratio"]
    table = Table("Publishing from threads, each job confirmed before its thread publishes the next", columns)
    for name, found in cycles.items():
        if found:
            one, many = ([getattr(each, how).rate for each in found] for how in ("one", "many"))
            cpu = of([each.one.cpu for each in found], "{:.2f}")
            table.rows.append([name, of(one), cpu, of(many), times(statistics.median(many) / statistics.median(one))])
    return table


def waited(found: Pairs, title: str) -> Table:
    """Latencies."""
    table = Table(title, ["", "median ms", "99 % ms"])
    for name, rounds in found.items():
        if rounds:
            table.rows.append([name, of([each[0] for each in rounds], "{:.2f}"), of([each[1] for each in rounds], "{:.2f}")])
    return table


def started(rounds: int) -> Table:
    """Imports and commands."""
    rows: list[Sequence[str]] = [[what, f"{seconds:.3f}"] for what, seconds in starting.seconds_of(rounds).items()]
    return Table("Imports and commands, in a new interpreter", ["", "seconds"], rows)
