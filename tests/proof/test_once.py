"""The scheduler's promise, measured: 300 ticks in a minute, while schedulers are killed and frozen and the broker restarts.

`RMQJOBS_PROOF_TICKS` makes it longer.
"""

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmqjobs.testing.broker import PrivateNode
from tests.acceptance.helpers import Stand, stand
from tests.helpers import wait

TICKS = int(os.environ.get("RMQJOBS_PROOF_TICKS", "300"))
SCHEDULES = 5  # each ticks once a second, one 0.2 seconds after the other
HEARTBEAT = 4.0
SCHEDULE = """
[schedules.beat-{number}]
type = "accept.tick"
every = "1s"
start = "{start}"
misfire = "all"
"""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(TICKS + 240)]


@dataclass
class Fleet:
    """Three schedulers, of which one is active; whoever is killed is replaced."""

    stand: Stand
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    logs: dict[int, Path] = field(default_factory=dict)
    took_over: list[tuple[str, float]] = field(default_factory=list)

    def start(self) -> None:
        log = self.stand.folder / f"scheduler-{len(self.logs)}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "rmqjobs", "scheduler", "--plugin", "accept", "-v"]
            environ = self.stand.environ | {"RMQJOBS_HEARTBEAT": f"{HEARTBEAT:g}s"}
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, cwd=self.stand.folder)
        self.stand.processes.append(process)
        self.running[process.pid], self.logs[process.pid] = process, log

    def activations(self) -> list[tuple[datetime, int]]:
        """When which process became active, in order."""
        found = []
        for pid, log in self.logs.items():
            for line in log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if record["event"] == "scheduler activated":
                        found.append((datetime.fromisoformat(record["timestamp"]), pid))
        return sorted(found)

    @property
    def active(self) -> int:
        return self.activations()[-1][1]

    def strike(self, number: int) -> None:
        """Kills the active one, or freezes it each third time, and notes how long it takes until another is active."""
        victim, before = self.active, len(self.activations())
        how = "SIGSTOP" if number % 3 == 2 else "kill -9"
        struck = time.monotonic()
        os.kill(victim, signal.SIGKILL if how == "kill -9" else signal.SIGSTOP)
        wait(lambda: len(self.activations()) > before, timeout=60)
        self.took_over.append((how, time.monotonic() - struck))
        if how == "kill -9":
            self.running.pop(victim).wait()
            self.start()
        else:
            time.sleep(random.uniform(0.0, 2.0))
            os.kill(victim, signal.SIGCONT)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PrivateNode | None]:
    """A node of this test's own, because it restarts it; None when the tests were given a broker."""
    if os.environ.get("RMQJOBS_TEST_URL") or os.environ.get("RMQJOBS_URL"):
        yield None
        return
    node = PrivateNode(tmp_path / "broker")
    node.start()
    yield node
    node.remove()


@dataclass
class Run:
    """One line of the ledger that the handler keeps."""

    job_id: str
    at: float  # seconds since 1970

    @property
    def schedule(self) -> str:
        return self.job_id.partition("@")[0]

    @property
    def planned(self) -> datetime:
        return datetime.fromisoformat(self.job_id.partition("@")[2])


def runs_of(here: Stand) -> list[Run]:
    lines = (line.split() for line in here.effects if line.startswith("tick "))
    return [Run(job_id, float(at)) for _, job_id, at in lines]


def test_every_tick_runs_once(node: PrivateNode | None, tmp_path: Path) -> None:
    url = node.url if node else os.environ.get("RMQJOBS_TEST_URL") or os.environ["RMQJOBS_URL"]
    begin = datetime.now(UTC).replace(microsecond=0)
    starts = [(begin + timedelta(seconds=number / SCHEDULES)).isoformat() for number in range(SCHEDULES)]
    (tmp_path / "rmqjobs.toml").write_text("".join(SCHEDULE.format(number=n, start=at) for n, at in enumerate(starts)))
    killed = None
    with stand(tmp_path, url, f"proof-{secrets.token_hex(3)}") as here:
        fleet = Fleet(here)
        for _ in range(3):
            fleet.start()
        wait(fleet.activations)
        here.worker()
        began, number = time.monotonic(), 0
        while len(runs_of(here)) < TICKS:
            assert time.monotonic() - began < TICKS + 120, "it does not tick any more"
            time.sleep(random.uniform(1.0, 3.0))
            if node and killed is None and len(runs_of(here)) > TICKS // 2:
                killed = restart(node, fleet)
                continue
            fleet.strike(number)
            number += 1
        last = len(runs_of(here)) + SCHEDULES * 3
        wait(lambda: len(runs_of(here)) >= last, timeout=60)
        runs = runs_of(here)
    twice = {job_id for job_id, count in Counter(run.job_id for run in runs).items() if count > 1}
    print(f"\n{len(runs)} runs, {len(fleet.took_over)} failovers, broker restarted: {killed is not None}; twice: {len(twice)}")  # noqa: T201
    for name in {run.schedule for run in runs}:
        times = sorted({run.planned for run in runs if run.schedule == name})
        every_second = [times[0] + timedelta(seconds=n) for n in range(len(times))]
        assert times == every_second, f"ticks of {name} that are missing: {set(every_second) - set(times)}"
    # A job whose acknowledgement the broker lost with its life comes again, as any job does.
    lost = {run.job_id for run in runs if killed is not None and killed - 2 < run.at <= killed}
    assert twice <= lost
    kills = [seconds for how, seconds in fleet.took_over if how == "kill -9"]
    freezes = [seconds for how, seconds in fleet.took_over if how == "SIGSTOP"]
    print(f"seconds to the next active one: killed {max(kills):.2f}, frozen {max(freezes):.2f} at most")  # noqa: T201
    assert sorted(kills)[len(kills) // 2] < HEARTBEAT, "a killed one's connection is closed: nobody waits for heartbeats"


def restart(node: PrivateNode, fleet: Fleet) -> float:
    """Kills the broker and starts it again; when it was killed, in seconds since 1970."""
    before, killed = len(fleet.activations()), time.time()
    node.kill()
    node.start()
    wait(lambda: len(fleet.activations()) > before, timeout=60)
    return killed
