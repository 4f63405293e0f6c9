"""What producers publish; imports nothing heavy, so that an API can use it without ffmpeg."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, HttpUrl

from rmqjobs import Payload

Height = Annotated[int, Field(ge=144, le=4320, multiple_of=2)]


class TranscodeVideo(Payload, type="video.transcode"):
    """Make smaller versions of an uploaded video.

    The files are `<folder>/<video_id>-<height>p.mp4`.
    """

    video_id: str = Field(pattern=r"^[\w-]{1,64}$")
    source: str
    folder: str
    heights: tuple[Height, ...] = (1080, 720, 480)


class AnnounceVideo(Payload, type="video.announce"):
    """Tell a service of ours, by HTTP POST, that a video is ready."""

    video_id: str
    url: HttpUrl


class RemindViewer(Payload, type="video.remind"):
    """Remind a viewer of a video that was put aside; published with a delay."""

    video_id: str
    viewer: str
    url: HttpUrl


class DeleteFailedUploads(Payload, type="video.delete-failed-uploads"):
    """Delete the files of uploads that failed long ago; ticked every night."""

    older_than: timedelta = Field(timedelta(days=7), ge=timedelta(hours=1))


class ReportWeek(Payload, type="video.report-week"):
    """Report what became of the uploads of a week; ticked every Monday."""


class SyncUploads(Payload, type="video.sync-uploads"):
    """Make the table of uploads fit the folder; ticked every 15 minutes."""
