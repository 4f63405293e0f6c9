"""The scheduler's promise, measured: 300 one-second ticks while schedulers are killed and frozen and the broker restarts.

Slow by nature, so it runs beside the other tests. `RMQJOBS_PROOF_TICKS` shortens it.
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
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rmqjobs.testing.broker import PrivateNode
from tests.acceptance.helpers import Stand, stand
from tests.helpers import wait

TICKS = int(os.environ.get("RMQJOBS_PROOF_TICKS", "300"))
HEARTBEAT = 6.0
SCHEDULE = """
[schedules.beat]
type = "accept.tick"
every = "1s"
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
        """Kills or freezes the active one, in turn, and notes how long it takes until another is active."""
        victim, before = self.active, len(self.activations())
        how = ("kill -9", "SIGSTOP")[number % 2]
        struck = time.monotonic()
        os.kill(victim, signal.SIGKILL if how == "kill -9" else signal.SIGSTOP)
        wait(lambda: len(self.activations()) > before, timeout=30)
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


def planned(job_id: str) -> datetime:
    return datetime.fromisoformat(job_id.partition("@")[2])


def test_every_tick_happens_once(node: PrivateNode | None, tmp_path: Path) -> None:
    url = node.url if node else os.environ.get("RMQJOBS_TEST_URL") or os.environ["RMQJOBS_URL"]
    (tmp_path / "rmqjobs.toml").write_text(SCHEDULE)
    with stand(tmp_path, url, f"proof-{secrets.token_hex(3)}") as here:
        fleet = Fleet(here)
        for _ in range(3):
            fleet.start()
        wait(fleet.activations)
        here.worker()
        began = time.monotonic()
        number, restarted = 0, node is None
        while len(ticks_of(here)) < TICKS - 20:
            assert time.monotonic() - began < TICKS + 120, "it does not tick any more"
            time.sleep(random.uniform(2.0, 5.0))
            if node and not restarted and len(ticks_of(here)) > TICKS // 2:
                before = len(fleet.activations())
                node.kill()
                node.start()
                restarted = True
                wait(lambda before=before: len(fleet.activations()) > before, timeout=60)  # type: ignore[misc]
                continue
            fleet.strike(number)
            number += 1
        last = len(ticks_of(here)) + 20
        wait(lambda: len(ticks_of(here)) >= last, timeout=60)
    ids = ticks_of(here)
    times = sorted({planned(job_id) for job_id in ids})
    missing = [at for at in (times[0] + timedelta(seconds=n) for n in range(len(times))) if at not in set(times)]
    twice = {job_id: count for job_id, count in Counter(ids).items() if count > 1}
    kills = [round(seconds, 2) for how, seconds in fleet.took_over if how == "kill -9"]
    freezes = [round(seconds, 2) for how, seconds in fleet.took_over if how == "SIGSTOP"]
    print(f"\n{len(times)} ticks, {len(fleet.took_over)} failovers, broker restarted: {node is not None and restarted}")  # noqa: T201
    print(f"same id twice: {len(twice)}; seconds to the next active one: killed {kills}, frozen {freezes}")  # noqa: T201
    assert len(times) >= TICKS
    assert missing == []
    assert len(set(ids)) == len(times), "one planned time under two ids"
    assert len(twice) <= len(fleet.took_over) + 2, "repeats come from failovers only"
    assert max(kills) < 1.0 + 0.5, "half a second of which is this test looking"
    assert max(freezes) < HEARTBEAT + 1.5, "a second of which is the broker's rounding"


def ticks_of(here: Stand) -> list[str]:
    return [line.split()[1] for line in here.effects if line.startswith("tick ")]
