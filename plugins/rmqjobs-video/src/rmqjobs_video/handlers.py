"""The handlers of published jobs. Each is safe to run twice: an existing file is kept, and a POST carries the job's id."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

from rmqjobs import Job, Payload, Reject, Retry
from rmqjobs_video import ffmpeg
from rmqjobs_video.payloads import AnnounceVideo, RemindViewer, TranscodeVideo
from rmqjobs_video.plugin import plugin

_TIMEOUT = 10.0
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


@plugin.handler(pool="process", max_runtime=timedelta(hours=2))
def transcode(payload: TranscodeVideo, job: Job) -> list[str]:
    """Makes one file for each height; the checkpoint remembers which are done."""
    source, folder = Path(payload.source), Path(payload.folder)
    try:
        found = ffmpeg.probe(source)
    except ffmpeg.NotAVideo as error:
        raise Reject(str(error)) from error
    folder.mkdir(parents=True, exist_ok=True)
    finished: list[str] = []
    for number, height in enumerate(payload.heights):
        target = folder / f"{payload.video_id}-{height}p.mp4"

        def report(part: float, number: int = number, height: int = height) -> None:
            job.progress(number + part, len(payload.heights), f"{height}p")

        if not target.exists():
            ffmpeg.scale(source, target, height, seconds=found.seconds, progress=report)
        finished.append(str(target))
        job.checkpoint({"finished": list(finished)})
    job.log("transcoded", files=len(finished), seconds=round(found.seconds, 1))
    return finished


@plugin.handler
def announce(payload: AnnounceVideo, job: Job) -> None:
    """Tells a service that the video is ready; tries again while that service is busy or down."""
    _post(payload, str(payload.url), job)


@plugin.handler
def remind(payload: RemindViewer, job: Job) -> None:
    """Sends the reminder that was published with a delay."""
    _post(payload, str(payload.url), job)


def _post(payload: Payload, url: str, job: Job) -> None:
    """POSTs the payload; the job's id is the idempotency key, so that a repeated delivery is recognised there."""
    request = urllib.request.Request(  # noqa: S310 - HttpUrl lets only http and https through
        url,
        data=json.dumps(payload.model_dump(mode="json", exclude={"url"})).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": job.id},
    )
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        if error.code == _TOO_MANY_REQUESTS or error.code >= _SERVER_ERRORS:
            raise Retry(f"{url} answered {error.code}") from error
        raise Reject(f"{url} answered {error.code}: it will not take this") from error
