"""The video plugin: transcodes uploads, tells others when they are ready, reminds viewers, and keeps the uploads in order."""

from rmqjobs_video import handlers, upkeep
from rmqjobs_video.payloads import (
    AnnounceVideo,
    DeleteFailedUploads,
    RemindViewer,
    ReportWeek,
    SyncUploads,
    TranscodeVideo,
)
from rmqjobs_video.plugin import plugin

__all__ = [
    "AnnounceVideo",
    "DeleteFailedUploads",
    "RemindViewer",
    "ReportWeek",
    "SyncUploads",
    "TranscodeVideo",
    "handlers",
    "plugin",
    "upkeep",
]
