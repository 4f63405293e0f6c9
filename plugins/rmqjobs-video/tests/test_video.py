"""The handlers on real files and a real HTTP server; no broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from rmqjobs import Job, Reject, Retry
from rmqjobs.testing import run_job
from rmqjobs_video import AnnounceVideo, TranscodeVideo, ffmpeg, plugin
from rmqjobs_video.payloads import RemindViewer


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    ffmpeg.make_clip(path, seconds=1, width=640, height=360)
    return path


@contextmanager
def service(*answers: int) -> Iterator[tuple[str, list[str]]]:
    """An HTTP service that answers with these codes in turn, the last one for ever."""
    keys: list[str] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", keys
    finally:
        server.shutdown()
        server.server_close()


async def test_a_video_is_transcoded_to_every_height(clip: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, object]] = []
    job = Job("7", "video.transcode", reporter=lambda _job, kind, data: reports.append((kind, data)))

    files = await run_job(plugin, TranscodeVideo(video_id="7", source=str(clip), folder=str(tmp_path), heights=(240, 144)), job)

    assert files == [str(tmp_path / "7-240p.mp4"), str(tmp_path / "7-144p.mp4")]
    assert [ffmpeg.probe(Path(file)).height for file in files] == [240, 144]
    assert "progress" in {kind for kind, _ in reports}
    assert job.state == {"finished": files}


async def test_a_second_run_keeps_the_files_that_are_there(clip: Path, tmp_path: Path) -> None:
    payload = TranscodeVideo(video_id="7", source=str(clip), folder=str(tmp_path), heights=(144,))
    await run_job(plugin, payload)
    before = (tmp_path / "7-144p.mp4").stat().st_mtime_ns

    await run_job(plugin, payload)

    assert (tmp_path / "7-144p.mp4").stat().st_mtime_ns == before


async def test_a_source_that_is_no_video_is_rejected(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    with pytest.raises(Reject, match=r"broken\.mp4 holds no video"):
        await run_job(plugin, TranscodeVideo(video_id="7", source=str(broken), folder=str(tmp_path)))


async def test_a_busy_service_is_asked_again_later() -> None:
    with service(503) as (url, _), pytest.raises(Retry, match="answered 503"):
        await run_job(plugin, AnnounceVideo(video_id="7", url=url))


async def test_a_service_that_refuses_is_not_asked_again() -> None:
    with service(404) as (url, _), pytest.raises(Reject, match="answered 404"):
        await run_job(plugin, AnnounceVideo(video_id="7", url=url))


async def test_the_job_id_is_the_idempotency_key() -> None:
    with service(200) as (url, keys):
        await run_job(plugin, RemindViewer(video_id="7", viewer="ada", url=url), Job("job-1", "video.remind"))
    assert keys == ["job-1"]


def test_a_height_that_no_encoder_takes_is_refused_before_publishing() -> None:
    with pytest.raises(ValidationError, match="heights"):
        TranscodeVideo(video_id="7", source="in.mp4", folder="out", heights=(1081,))
