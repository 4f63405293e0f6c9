"""What the video plugin does by schedule: clean up at night, report on Mondays, sync every quarter of an hour.

Each handler goes by its tick's planned time, not by the clock, so that a tick that comes late or twice does the same work.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from rmqjobs import Job
from rmqjobs_video.library import opened
from rmqjobs_video.payloads import DeleteFailedUploads, ReportWeek, SyncUploads
from rmqjobs_video.plugin import plugin

ZONE = "Europe/Berlin"

plugin.schedule("cleanup", cron="0 3 * * *", tz=ZONE, payload=DeleteFailedUploads(), expected_by=timedelta(hours=2))
plugin.schedule("report", cron="0 9 * * MON", tz=ZONE, payload=ReportWeek())
plugin.schedule("sync", every=timedelta(minutes=15), payload=SyncUploads(), misfire="skip")


@plugin.handler(singleton=True)
def delete_failed_uploads(payload: DeleteFailedUploads, job: Job) -> dict[str, int]:
    """Deletes one upload after the other, file and row. If it is killed half-way, the next run goes on where it ended."""
    now = _planned(job)
    freed = deleted = 0
    with opened() as library:
        uploads = library.failed_before(now - payload.older_than)
        for upload in uploads:
            if job.cancelled:
                break
            try:
                library.delete(upload, now)
            except ValueError as error:
                job.log(f"left alone: {error}")
                continue
            deleted, freed = deleted + 1, freed + upload.bytes
            job.progress(deleted, len(uploads), upload.name)
    job.log("cleaned up", deleted=deleted, freed_bytes=freed)
    return {"deleted": deleted, "freed_bytes": freed}


@plugin.handler(singleton=True)
def report_week(_payload: ReportWeek, job: Job) -> str:
    """Writes `reports/2026-W47.json`, whole or not at all: what became of uploads in the period that the tick stands for."""
    end = _planned(job)
    start = job.period_start or end - timedelta(days=7)
    with opened() as library:
        report = {"from": start.isoformat(), "until": end.isoformat(), "uploads": library.changes(start, end)}
        folder = library.folder / "reports"
        folder.mkdir(exist_ok=True)
        path = folder / f"{start:%G-W%V}.json"
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(report, indent=2) + "\n")
        unfinished.replace(path)
    return str(path)


@plugin.handler(singleton=True)
def sync_uploads(_payload: SyncUploads, job: Job) -> dict[str, int]:
    """Makes the table fit the folder, where other programs put files."""
    with opened() as library:
        new, missing = library.sync(_planned(job))
    return {"new": new, "missing": missing}


def _planned(job: Job) -> datetime:
    """The tick's planned time; now, for a job that was published by hand."""
    return job.scheduled_for or datetime.now(UTC)
