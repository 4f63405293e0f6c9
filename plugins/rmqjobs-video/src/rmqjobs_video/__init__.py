"""The video plugin: transcodes uploads, tells others when they are ready, and reminds viewers."""

from rmqjobs_video.handlers import plugin
from rmqjobs_video.payloads import AnnounceVideo, RemindViewer, TranscodeVideo

__all__ = ["AnnounceVideo", "RemindViewer", "TranscodeVideo", "plugin"]
