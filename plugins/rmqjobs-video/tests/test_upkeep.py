"""What runs by schedule, on a moved clock, with real files and a real table; no broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rmqjobs.testing import jobs_of, run_job
from rmqjobs.topology import Names, job_type_of_key
from rmqjobs.wire.headers import RUN_AT
from rmqjobs.wire.jobs import Options, encode
from rmqjobs_video import DeleteFailedUploads, RemindViewer, plugin
from rmqjobs_video.library import VARIABLE, Library

BERLIN = ZoneInfo("Europe/Berlin")
# Sunday; the clocks go back an hour on 25 October at 3:00.
START = datetime(2026, 10, 18, 12, tzinfo=UTC)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "library"))
    library = Library(tmp_path / "library")
    yield library
    library.close()


def upload(library: Library, name: str, state: str, at: datetime) -> Path:
    path = library.files / name
    path.write_bytes(b"x" * 100)
    library.record(name, state, 100, at)
    return path


async def test_failed_uploads_are_deleted_at_three_each_night_after_seven_days(library: Library) -> None:
    old, young = upload(library, "old", "failed", START), upload(library, "young", "failed", START + timedelta(days=4))
    kept = upload(library, "kept", "uploaded", START)
    gone_on: dict[str, datetime] = {}
    nights = jobs_of(plugin, "cleanup", START, START + timedelta(days=14))
    for payload, job in nights:
        await run_job(plugin, payload, job)
        for path in (old, young, kept):
            if not path.exists() and job.scheduled_for:
                gone_on.setdefault(path.name, job.scheduled_for.astimezone(BERLIN))
    assert [f"{job.scheduled_for.astimezone(BERLIN):%H:%M}" for _, job in nights if job.scheduled_for] == ["03:00"] * 14
    assert gone_on == {
        "old": datetime(2026, 10, 26, 3, tzinfo=BERLIN),  # on the 25th, it was seven days less eight hours
        "young": datetime(2026, 10, 30, 3, tzinfo=BERLIN),
    }


async def test_a_second_run_of_the_same_tick_changes_nothing(library: Library) -> None:
    upload(library, "old", "failed", START)
    payload, job = jobs_of(plugin, "cleanup", START, START + timedelta(days=9))[-1]
    assert await run_job(plugin, payload, job) == {"deleted": 1, "freed_bytes": 100}
    before = library.changes(START, START + timedelta(days=30))
    assert await run_job(plugin, payload, job) == {"deleted": 0, "freed_bytes": 0}
    assert library.changes(START, START + timedelta(days=30)) == before


CRASHES = """
import asyncio, os
from datetime import datetime
from rmqjobs import Job
from rmqjobs.testing import run_job
from rmqjobs_video import DeleteFailedUploads, plugin
from rmqjobs_video.library import Library

record, deleted = Library.record, []

def record_and_die(self, name, state, size, at):
    deleted.append(name)
    if len(deleted) == 3:
        os._exit(9)  # the third file is gone, its row does not know it
    record(self, name, state, size, at)

Library.record = record_and_die
job = Job("night", "video.delete-failed-uploads", scheduled_for=datetime.fromisoformat("2026-11-20T02:00:00+00:00"))
asyncio.run(run_job(plugin, DeleteFailedUploads(), job))
"""


def test_a_crash_half_way_is_finished_by_the_next_run(library: Library) -> None:
    paths = [upload(library, f"old-{n}", "failed", START) for n in range(5)]
    ran = subprocess.run([sys.executable, "-c", CRASHES], env=os.environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 9, ran.stderr
    assert [path.exists() for path in paths] == [False, False, False, True, True]
    assert len(library.failed_before(START + timedelta(days=1))) == 3
    payload, job = jobs_of(plugin, "cleanup", START, START + timedelta(days=9))[-1]
    assert asyncio.run(run_job(plugin, payload, job)) == {"deleted": 3, "freed_bytes": 300}
    assert [path.exists() for path in paths] == [False] * 5


async def test_a_name_that_leads_out_of_the_folder_is_left_alone(library: Library, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    library.record("../../precious", "failed", 1, START)
    library.record("", "failed", 1, START)
    payload, job = jobs_of(plugin, "cleanup", START, START + timedelta(days=9))[-1]
    assert await run_job(plugin, payload, job) == {"deleted": 0, "freed_bytes": 0}
    assert precious.exists()


async def test_a_report_each_monday_at_nine_of_the_week_before(library: Library) -> None:
    upload(library, "a", "uploaded", START)
    upload(library, "b", "failed", START + timedelta(days=2))
    mondays = jobs_of(plugin, "report", START, START + timedelta(days=14))
    for payload, job in mondays * 2:  # each twice
        await run_job(plugin, payload, job)
    planned = [job.scheduled_for.astimezone(BERLIN) for _, job in mondays if job.scheduled_for]
    assert planned == [datetime(2026, 10, day, 9, tzinfo=BERLIN) for day in (19, 26)]
    reports = sorted((library.folder / "reports").iterdir())
    assert [path.name for path in reports] == ["2026-W42.json", "2026-W43.json"]
    first, second = (json.loads(path.read_text()) for path in reports)
    assert first["uploads"] == {"uploaded": {"uploads": 1, "bytes": 100}}
    assert second["uploads"] == {"failed": {"uploads": 1, "bytes": 100}}
    assert second["from"] == first["until"]


async def test_a_sync_every_quarter_of_an_hour(library: Library) -> None:
    (library.files / "found").write_bytes(b"xx")
    upload(library, "lost", "uploaded", START).unlink()
    ticks = jobs_of(plugin, "sync", START, START + timedelta(hours=1))
    assert [f"{job.scheduled_for:%M}" for _, job in ticks] == ["15", "30", "45", "00"]
    results = [await run_job(plugin, payload, job) for payload, job in ticks]
    assert results == [{"new": 1, "missing": 1}, *[{"new": 0, "missing": 0}] * 3]


def test_the_limit_has_a_lower_bound() -> None:
    with pytest.raises(ValueError, match="greater than or equal"):
        DeleteFailedUploads(older_than=timedelta(0))


def test_a_reminder_comes_24_hours_after_its_event() -> None:
    """No schedule but a delayed job: RabbitMQ keeps it, over a change of clocks too."""
    event, delay = datetime(2026, 10, 24, 18, 30, tzinfo=BERLIN), timedelta(hours=24)
    reminder = RemindViewer(video_id="42", viewer="ada", url="http://localhost/").model_dump_json().encode()
    message = encode(
        Names(), "video.remind", reminder, job_id="r", options=Options(delay=delay), now=event.astimezone(UTC), max_body=1000
    )
    assert message.headers
    due = datetime.fromtimestamp(message.headers[RUN_AT] / 1000, BERLIN)
    assert due == datetime(2026, 10, 25, 17, 30, tzinfo=BERLIN), "24 hours of real time"
    assert job_type_of_key(message.routing_key) == "video.remind"
    digits = message.routing_key.split(".")[:28]
    assert int("".join(digits), 2) == 24 * 3600
