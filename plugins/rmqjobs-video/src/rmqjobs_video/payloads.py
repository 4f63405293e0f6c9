"""What producers publish; imports nothing heavy, so that an API can use it without ffmpeg."""

from __future__ import annotations

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
