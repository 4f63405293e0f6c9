"""Runs ffmpeg from its wheel: encode with progress, probe. Knows no jobs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

_DURATION = re.compile(r"Duration: (\d+):(\d+):(\d+\.\d+)")
_PICTURE = re.compile(r"Video: (\w+).*? (\d{2,5})x(\d{2,5})")
_ERROR_LINES = 3


class NotAVideo(Exception):
    """ffmpeg finds no picture in the file."""


class EncodeFailed(Exception):
    """ffmpeg ended with an error; its last lines are the message."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file holds: codec, width and height in pixels, duration in seconds."""

    codec: str
    width: int
    height: int
    seconds: float


def probe(path: Path) -> Probe:
    """Looks into a file; raises `NotAVideo`."""
    ran = subprocess.run(  # noqa: S603 - our own ffmpeg
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    duration, picture = _DURATION.search(ran.stderr), _PICTURE.search(ran.stderr)
    if duration is None or picture is None:
        raise NotAVideo(f"{path.name} holds no video: {_last_lines(ran.stderr)}")
    hours, minutes, seconds = duration.groups()
    return Probe(picture[1], int(picture[2]), int(picture[3]), int(hours) * 3600 + int(minutes) * 60 + float(seconds))


def scale(source: Path, target: Path, height: int, *, seconds: float, progress: Callable[[float], None]) -> None:
    """Encodes `source` to that height; only a finished file appears at `target`.

    Args:
        source: The video.
        target: Where the result goes.
        height: In pixels; the width keeps the proportions.
        seconds: The source's duration.
        progress: Called with the part done, from 0 to 1.

    Raises:
        EncodeFailed: ffmpeg failed.
    """
    unfinished = target.with_suffix(".part.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-loglevel", "error", "-i", str(source)]
    command += ["-vf", f"scale=-2:{height}", "-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-an"]
    command += ["-progress", "pipe:1", str(unfinished)]
    with subprocess.Popen(  # noqa: S603 - our own ffmpeg
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as running:
        assert running.stdout is not None  # noqa: S101 - asked for above
        assert running.stderr is not None  # noqa: S101
        for line in running.stdout:
            if line.startswith("out_time_us=") and line[12:].strip().isdigit():
                progress(min(int(line[12:]) / 1e6 / max(seconds, 0.001), 1.0))
        errors = running.stderr.read()
    if running.returncode:
        unfinished.unlink(missing_ok=True)
        raise EncodeFailed(_last_lines(errors))
    unfinished.replace(target)


def make_clip(path: Path, *, seconds: int, width: int, height: int) -> None:
    """Draws a moving test picture, for demos and tests."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", f"testsrc2=size={width}x{height}:rate=24:duration={seconds}"]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)  # noqa: S603 - our own ffmpeg


def _last_lines(text: str) -> str:
    return "; ".join(line.strip() for line in text.strip().splitlines()[-_ERROR_LINES:]) or "ffmpeg said nothing"
