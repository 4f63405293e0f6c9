"""Faults against systems: who loses jobs, runs them twice, and how long it takes to recover. `make faults` runs it.

All systems stand on the same broker and suffer the same fault in the same moment, each with two workers and a publisher that
publishes every job until that succeeds. Lost is what was published and neither had an effect nor is still in a queue, also
after its workers were restarted.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rmqjobs.testing.broker import NoBroker
from tests.faults.faults import CLUSTER, FAULTS, QUICK, Fault
from tests.faults.ledger import EFFECT, PUBLISHED
from tests.faults.stages import Stage, stage
from tests.faults.teams import OURS, PEERS, ROOT, Load, Team, until

PAGE = ROOT / "docs" / "explanation" / "faults.md"
PEERS_PYTHON = ROOT / ".tools" / "peers" / "bin" / "python"
STRIKE_AFTER = 2.0  # seconds of load
GO_ON_FOR = 2.0  # seconds of load after the fault
PATIENCE = 45.0  # seconds for what is left to be done, when the fault is over
AFTER_RESTART = 20.0
out = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Outcome:
    """What became of one system's jobs under one fault.

    Args:
        jobs: Published.
        lost: Gone.
        waiting: Still in a queue at the end, or given up there.
        stuck: Done only after its workers were restarted.
        twice: Effects beyond the first.
        seconds: From the end of the fault until all that was published before had its effect, and something that was published
            after it, too; None when that never came.
    """

    jobs: int
    lost: int
    waiting: int
    stuck: int
    twice: int
    seconds: float | None

    def __str__(self) -> str:
        words = [f"{self.lost} lost" if self.lost else "", f"{self.stuck} stuck" if self.stuck else ""]
        words += [f"{self.waiting} waiting" if self.waiting else "", f"{self.twice} twice" if self.twice else ""]
        time_taken = "never" if self.seconds is None else f"{self.seconds:.1f} s"
        return ", ".join([*filter(None, words), time_taken])


class Matrix:
    """Runs faults on a stage, one after the other; each has numbers of its own in the ledgers."""

    def __init__(self, scene: Stage) -> None:
        self._scene = scene
        self._next = 0

    def suffer(self, fault: Fault) -> dict[str, Outcome]:
        """What became of each system's jobs."""
        first = fault.load.first or self._next
        load = Load(fault.load.jobs, fault.load.rate, first)
        self._next = max(self._next, load.numbers.stop) if not fault.load.first else self._next
        teams = [team for team in self._scene.teams if not fault.only or team.name in fault.only]
        if fault.prepare is not None:
            fault.prepare(self._scene)
        for team in teams:
            team.publish(load, **fault.environ)
        for team in teams:
            until(lambda team=team: team.has_started(load), 20)
        time.sleep(STRIKE_AFTER)
        fault.strike(self._scene, load)
        healed = time.time()
        time.sleep(GO_ON_FOR)
        for team in teams:
            team.stop_publishing()
        until(lambda: all(team.has_published() and not team.unfinished(load) for team in teams), PATIENCE)
        stuck = {team.name: team.unfinished(load) for team in teams}
        self._restart([team for team in teams if stuck[team.name] or not team.has_published()], load)
        return {team.name: self._outcome(team, load, healed, len(stuck[team.name])) for team in teams}

    def _restart(self, teams: Sequence[Team], load: Load) -> None:
        for team in teams:
            team.replace_worker(0)
            team.replace_worker(1)
        until(lambda: all(team.has_published() and not team.unfinished(load) for team in teams), AFTER_RESTART)

    def _outcome(self, team: Team, load: Load, healed: float, stuck: int) -> Outcome:
        published, effects = team.ledger.times(PUBLISHED, load.numbers), team.ledger.times(EFFECT, load.numbers)
        missing = len(team.unfinished(load))
        names = [*team.queues["waiting"], *team.queues["dead"]]
        waiting = min(missing, self._scene.messages(names)) if missing else 0
        counts = team.ledger.count(EFFECT, load.numbers)
        return Outcome(
            jobs=len(published),
            lost=missing - waiting,
            waiting=waiting,
            stuck=max(stuck - missing, 0),
            twice=sum(counts.values()) - len(counts),
            seconds=_recovery(published, effects, healed),
        )


def _recovery(published: dict[int, float], effects: dict[int, float], healed: float) -> float | None:
    before = [n for n, at in published.items() if at <= healed]
    after = [effects[n] for n, at in published.items() if at > healed and n in effects]
    if any(n not in effects for n in before) or (not after and len(before) < len(published)):
        return None
    last_before = max((effects[n] for n in before), default=healed)
    return max(last_before - healed, min(after, default=healed) - healed, 0.0)


def run(systems: dict[str, str], faults: Sequence[Fault], folder: Path) -> Iterator[tuple[Fault, dict[str, Outcome], str]]:
    """Outcomes fault by fault, with the broker's version; the cluster's after the single node's."""
    for nodes, chosen in (
        (1, [each for each in faults if each.kind != CLUSTER]),
        (3, [f for f in faults if f.kind == CLUSTER]),
    ):
        if chosen:
            with stage(folder, systems, nodes=nodes) as scene:
                version, matrix = scene.version, Matrix(scene)
                for fault in chosen:
                    yield fault, matrix.suffer(fault), version


def main() -> None:
    """Prints the table as it grows, and with `--write` puts it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    parser.add_argument("--faults", nargs="+", default=[each.name for each in FAULTS], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="only those that CI runs")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} of the documentation")
    options = parser.parse_args()
    systems = {name: sys.executable if name == OURS else str(PEERS_PYTHON) for name in options.systems}
    faults = [each for each in FAULTS if each.name in options.faults and (not options.quick or each.kind == QUICK)]
    began, rows, versions = time.monotonic(), [], {}
    out.print(f"{len(faults)} faults, {', '.join(systems)}: lost, twice, and seconds until all was done")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            for fault, outcomes, version in run(systems, faults, Path(folder)):
                rows.append((fault, outcomes))
                versions[fault.kind == CLUSTER] = version
                out.print(f"{fault.name}: " + " · ".join(f"{name} {outcome}" for name, outcome in outcomes.items()))
        except NoBroker as error:
            sys.exit(str(error))
    minutes = (time.monotonic() - began) / 60
    if options.write:
        PAGE.write_text(page(rows, versions, minutes))
        out.print(f"written: {PAGE.relative_to(ROOT)}")
    lost = sum(outcomes[OURS].lost for _, outcomes in rows if OURS in outcomes)
    out.print(f"{len(rows)} faults in {minutes:.1f} minutes; rmqjobs lost {lost}")
    sys.exit(1 if lost else 0)


def page(rows: Sequence[tuple[Fault, dict[str, Outcome]]], versions: dict[bool, str], minutes: float) -> str:
    """The documentation's page: our own row by row, then all systems side by side."""
    ours = [
        f"| {fault.name} | {o.jobs} | {o.lost} | {o.twice} | {'-' if o.seconds is None else f'{o.seconds:.1f}'} |"
        for fault, outcomes in rows
        if (o := outcomes.get(OURS))
    ]
    names = [name for name in (OURS, *PEERS) if any(name in outcomes for _, outcomes in rows)]
    beside = [
        f"| {fault.name} | " + " | ".join(str(outcomes.get(name, "-")) for name in names) + " |" for fault, outcomes in rows
    ]
    template = (ROOT / "tests" / "faults" / "page.md").read_text()
    return template.format(
        ours="\n".join(ours),
        systems=" | ".join(names),
        rule="|".join("---" for _ in names),
        beside="\n".join(beside),
        version=versions.get(False, "-"),
        cluster=versions.get(True, "-"),
        minutes=f"{minutes:.0f}",
        cores=os.cpu_count(),
        python=platform.python_version(),
    )


if __name__ == "__main__":
    main()
