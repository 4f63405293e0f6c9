"""Schedules as operators see them: the command line, real processes, and what is printed when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rmqjobs.cli.known import who
from rmqjobs.settings import Settings
from rmqjobs.testing.broker import RunningBroker
from tests.acceptance.helpers import Stand, stand
from tests.helpers import wait

pytestmark = pytest.mark.broker
SCHEDULES = """
[schedules.beat]
type = "accept.tick"
every = "1s"

[schedules.nightly]
type = "accept.mark"
cron = "30 2 * * *"
tz = "Europe/Berlin"
payload = { n = 1 }
"""


@pytest.fixture
def here(broker: RunningBroker, settings: Settings, tmp_path: Path) -> Any:
    (tmp_path / "rmqjobs.toml").write_text(SCHEDULES)
    with stand(tmp_path, broker.url, settings.prefix) as made:
        yield made


def scheduler(here: Stand, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = here.folder / f"scheduler-{len(here.processes)}.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "rmqjobs", "scheduler", "--plugin", "accept", "-v", *options]
        process = subprocess.Popen(command, env=here.environ, stdout=output, stderr=output, cwd=here.folder)
    here.processes.append(process)
    wait(lambda: any(word in log.read_text() for word in ("activated", "on standby")) or process.poll() is not None)
    return process, log


def schedules(here: Stand, *arguments: str, code: int = 0) -> Any:
    ran = here.cli("schedules", *arguments, code=code, cwd=here.folder)
    return json.loads(ran.stdout) if "--json" in arguments and not code else ran.stdout + ran.stderr


def test_an_operators_day(here: Stand) -> None:
    assert "Start one with: rmqjobs scheduler" in schedules(here, "list", code=6)
    scheduler(here)
    scheduler(here)
    here.worker()
    wait(lambda: here.effects)
    listed = schedules(here, "list", "--json")
    assert {each["name"]: (each["origin"], each["words"]) for each in listed["schedules"]} == {
        "beat": ("file", "every 1s"),
        "nightly": ("file", "At 02:30"),
    }
    assert len(listed["standbys"]) == 1
    assert "active: rmqjobs-scheduler@" in schedules(here, "list")
    assert "rmqjobs.toml, line 6" in schedules(here, "show", "nightly")
    assert "Did you mean 'nightly'?" in schedules(here, "show", "nightli", code=5)
    assert "beat is paused" in schedules(here, "pause", "beat")
    assert "already paused" in schedules(here, "pause", "beat")
    time.sleep(1.2)
    before = len(here.effects)
    assert schedules(here, "run", "nightly").strip().startswith("nightly@")
    wait(lambda: here.marks == [1])
    assert len(here.effects) == before + 1, "beat does not tick"
    assert "added soon: every 1s (UTC)" in schedules(
        here, "add", "soon", "--type", "accept.mark", "--every", "1s", "--data", '{"n": 5}'
    )
    wait(lambda: 5 in here.marks)
    assert "of this name already" in schedules(
        here, "add", "soon", "--type", "accept.mark", "--every", "1s", "--data", '{"n": 5}', code=7
    )
    assert "out of range" in schedules(here, "add", "x", "--type", "accept.mark", "--cron", "0 0 32 2 *", code=7)
    hand = schedules(here, "add", "hand", "--type", "accept.mark", "--cron", "0 0 31 2 *", "--data", '{"n": 6}')
    assert "so never by itself (UTC), run it with: rmqjobs schedules run hand" in hand
    schedules(here, "run", "hand")
    wait(lambda: 6 in here.marks)
    assert "n: Field required" in schedules(here, "add", "x", "--type", "accept.mark", "--every", "1h", code=7)
    assert "not JSON" in schedules(here, "add", "x", "--type", "accept.mark", "--every", "1h", "--data", "{n", code=2)
    assert "would come back" in schedules(here, "remove", "nightly", code=7)
    assert "removed soon" in schedules(here, "remove", "soon")
    assert "beat is resumed" in schedules(here, "resume", "beat")
    before = len(here.effects)
    wait(lambda: len(here.effects) > before)
    shown = here.cli("events", "--kind", "paused", "--kind", "added", "--json").stdout.splitlines()
    assert {json.loads(line)["data"]["by"] for line in shown} == {who()}


def test_a_stopped_scheduler_hands_over_at_once(here: Stand) -> None:
    first, former = scheduler(here)
    second, log = scheduler(here)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 0
    wait(lambda: "activated" in log.read_text(), told=lambda: former.read_text() + log.read_text())
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=30) == 0


def test_a_frozen_scheduler_is_said_to_be(here: Stand) -> None:
    process, _ = scheduler(here)
    os.kill(process.pid, signal.SIGSTOP)
    assert "has not answered within 1 s" in schedules(here, "pause", "beat", "--timeout", "1s", code=6)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGCONT)
    found = schedules(here, "list", "--json")["schedules"]
    assert found[0]["state"] == "on", "what was asked in vain does not happen later"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[schedules.a]\ntype = "accept.mark"\ncron = "0 0 32 2 *"\n', ["rmqjobs.toml, line 1", "out of range"]),
        ('[schedules.a]\ntype = "accept.mork"\nevery = "1h"\n', ["accept.mork", "Did you mean 'accept.mark'?"]),
        ('[schedules.a]\ntype = "accept.tick"\nevery = "1h"\ntz = "Mars/Olympus"\n', ["Mars/Olympus", "not an IANA time zone"]),
        ('[schedules.a]\ntype = "accept.mark"\nevery = "1h"\n', ["n: Field required"]),
        ("[schedules.a\n", ["rmqjobs.toml is not TOML"]),
        ('[schedule.a]\nevery = "1h"\n', ["there is no such setting"]),
    ],
)
def test_what_cannot_be_used_is_refused_at_start(here: Stand, text: str, said: list[str]) -> None:
    (here.folder / "rmqjobs.toml").write_text(text)
    process, log = scheduler(here)
    assert process.wait() in (2, 7)
    assert [part for part in said if part not in log.read_text()] == []
    assert "Traceback" not in log.read_text()


def test_next_preview_and_explain_need_no_broker(here: Stand) -> None:
    nowhere = {"RMQJOBS_URL": "amqp://nowhere.invalid/", "cwd": here.folder}
    upcoming = json.loads(here.cli("schedules", "next", "nightly", "-n", "3", "--json", "--plugin", "accept", **nowhere).stdout)
    assert len(upcoming) == 3
    assert upcoming[0]["at"][11:19] == "02:30:00"
    year = json.loads(
        here.cli("schedules", "preview", "--year", "--from", "2027-01-01", "--json", "--plugin", "accept", **nowhere).stdout
    )
    assert [each["ticks"] for each in year["schedules"]] == [366 * 86400, 366]
    assert [(each["at"][:16], each["clock_change"].partition(":")[0]) for each in year["clock_changes"]] == [
        ("2027-03-28T03:00", "clocks go forward"),
        ("2027-10-31T02:30", "clocks go back"),
    ]
    explained = json.loads(here.cli("schedules", "explain", "0 9 * * MON", "--tz", "Asia/Tokyo", "--json", **nowhere).stdout)
    assert explained["words"] == "At 09:00, only on Monday"
    assert len(explained["next"]) == 5
    assert "so never by itself" in here.cli("schedules", "explain", "0 0 31 2 *", **nowhere).stderr
    assert "more fields differ" in here.cli("schedules", "explain", "0 0 3 * * *", code=7, **nowhere).stderr


def test_a_year_of_five_hundred_schedules_takes_seconds(here: Stand) -> None:
    zones = ("Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Tokyo")
    kinds = ("*/5 * * * *", "0 * * * *", "H H * * *", "30 2 * * *", "0 9 1,15 * MON-FRI")
    tables = [f'[schedules.s{n}]\ntype = "accept.tick"\ncron = "{kinds[n % 5]}"\ntz = "{zones[n % 4]}"\n' for n in range(500)]
    (here.folder / "rmqjobs.toml").write_text("".join(tables))
    # Within the limit of a command, a minute; this only notices when it becomes hours.
    found = json.loads(here.cli("schedules", "preview", "--year", "--plugin", "accept", "--json", cwd=here.folder).stdout)
    assert len(found["schedules"]) == 500
    assert sum(each["ticks"] for each in found["schedules"]) > 10_000_000
    assert found["clock_changes"]
