"""The demo: a real video through a real RabbitMQ, and what happens to jobs on the way. Run it with `make demo`.

Every part is the real one: a broker, a worker process started from the command line, the plugin `rmqjobs-video` with ffmpeg, a
small web service that is busy twice, a dead letter reviewed with `rmqjobs dlq`, a job from a shell script, and two schedulers,
one of which is killed. It exits with 1 if anything did not happen.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rmqjobs import Publisher, Settings
from rmqjobs.events import Event, EventKind
from rmqjobs.journal import follow
from rmqjobs.testing.broker import RunningBroker, running_broker
from rmqjobs_video import AnnounceVideo, RemindViewer, TranscodeVideo, ffmpeg

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".demo"
HEIGHTS = (1080, 720, 480)
CLIP_SECONDS = 8
DELAY = 5
# On a broker of yours, the demo keeps to a prefix of its own.
PREFIX = "rmqjobs-demo" if os.environ.get("RMQJOBS_URL") else "rmqjobs"
CLI = [sys.executable, "-m", "rmqjobs"]

out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


class DidNotHappen(Exception):
    """A part of the demo that failed; the message says which."""


@dataclass
class Service:
    """A small web service: busy for the first two announcements, then fine. Remembers who called."""

    url: str = ""
    calls: list[tuple[str, dict[str, Any], int, float]] = field(default_factory=list)

    def answers(self, path: str, status: int) -> list[dict[str, Any]]:
        """The bodies that a path answered with that status."""
        return [body for called, body, answered, _ in self.calls if (called, answered) == (path, status)]


@dataclass
class Journal:
    """The records of the journal, as they come."""

    events: list[Event] = field(default_factory=list)

    def of(self, job_id: str, *kinds: EventKind) -> list[Event]:
        """The records of one job."""
        return [event for event in self.events if event.job == job_id and event.kind in kinds]

    def of_type(self, job_type: str, kind: EventKind) -> list[Event]:
        """The records of a job type."""
        return [event for event in self.events if (event.type, event.kind) == (job_type, kind)]


def main() -> int:
    """Runs the demo; returns 0 when all of it happened."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    out.print("\n[bold]rmqjobs demo[/bold]  a real video through a real RabbitMQ\n")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with _service() as service, _broker() as broker, _worker(broker), _journal(broker) as journal:
            rows = [*_tour(broker, service, journal), _ticked_through_a_crash(broker, journal)]
    except DidNotHappen as error:
        out.print(f"\n[red]did not happen:[/red] {error}")
        _show_tail(FOLDER / "worker.log")
        return 1
    _summary(rows, time.monotonic() - started)
    return 0


def _tour(broker: RunningBroker, service: Service, journal: Journal) -> list[tuple[str, str]]:
    clip = _step("make a 1080p clip with ffmpeg", lambda: _make_clip(FOLDER / "upload.mp4"))
    broken = FOLDER / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:2000])
    with Publisher(settings=_settings(broker), app_id="demo") as jobs:
        out.print("\n[bold]publishing[/bold]")
        reminded = jobs.publish(
            RemindViewer(video_id="42", viewer="ada", url=f"{service.url}/remind"), delay=timedelta(seconds=DELAY)
        )
        asked = time.time()
        announced = jobs.publish(AnnounceVideo(video_id="42", url=f"{service.url}/announce"))
        given_up = jobs.publish(TranscodeVideo(video_id="7", source=str(broken), folder=str(FOLDER / "7"), heights=(480,)))
        upload = jobs.publish(TranscodeVideo(video_id="42", source=str(clip), folder=str(FOLDER / "42"), heights=HEIGHTS))
        out.print(f"  video.remind     {reminded}  [dim]due in {DELAY} s[/dim]")
        out.print(f"  video.announce   {announced}  [dim]the service it calls is busy twice[/dim]")
        out.print(f"  video.transcode  {given_up}  [dim]a broken upload[/dim]")
        out.print(f"  video.transcode  {upload}  [dim]the real one[/dim]")
    foreign = _publish_from_a_shell(broker, service)
    out.print(f"  video.announce   [dim]by {foreign}[/dim]\n")
    return [
        _transcoded(journal, upload),
        _retried(journal, service, announced),
        _came_from_a_shell(journal, service, foreign),
        _delayed(journal, service, reminded, asked),
        *_given_up_and_replayed(broker, journal, given_up, clip, broken),
    ]


# -- what must have happened


def _transcoded(journal: Journal, job_id: str) -> tuple[str, str]:
    """Shows the progress of the upload, then looks into the files."""
    columns = (TextColumn("  transcoding {task.description:<6}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=out) as progress:
        bar = progress.add_task("", total=len(HEIGHTS))

        def ended() -> bool:
            for event in journal.of(job_id, EventKind.PROGRESS):
                progress.update(bar, completed=float(event.data["done"]), description=str(event.data["note"]))  # type: ignore[arg-type]
            return bool(journal.of(job_id, EventKind.SUCCEEDED))

        _await("the transcode", ended, 120)
        progress.update(bar, completed=len(HEIGHTS))
    if not journal.of(job_id, EventKind.PROGRESS):
        raise DidNotHappen("the transcode reported no progress")
    found = []
    for height in HEIGHTS:
        file = FOLDER / "42" / f"42-{height}p.mp4"
        seen = ffmpeg.probe(file)
        if seen.height != height or abs(seen.seconds - CLIP_SECONDS) > 1:
            raise DidNotHappen(f"{file.name} is {seen.width}x{seen.height} and {seen.seconds} s long")
        found.append(f"{seen.width}x{seen.height} ({file.stat().st_size // 1024:,} KB)")
    return "upload transcoded, files probed", ", ".join(found)


def _retried(journal: Journal, service: Service, job_id: str) -> tuple[str, str]:
    _await("the announcement's third attempt", lambda: journal.of(job_id, EventKind.SUCCEEDED), 30)
    retries = journal.of(job_id, EventKind.RETRIED)
    if len(retries) != 2 or len(service.answers("/announce", 503)) != 2:  # noqa: PLR2004 - busy twice
        raise DidNotHappen(f"the announcement was retried {len(retries)} times, not twice")
    waits = " s, then ".join(f"{event.data['in_seconds']:.1f}" for event in retries)
    return "failed twice, then succeeded", f"attempt 3; it waited {waits} s on the delay ladder"


def _came_from_a_shell(journal: Journal, service: Service, foreign: str) -> tuple[str, str]:
    _await("the job of the shell script", lambda: service.answers("/from-a-shell", 200), 15)
    _await("its record in the journal", lambda: len(journal.of_type("video.announce", EventKind.SUCCEEDED)) >= 2, 15)  # noqa: PLR2004
    return "published without Python", f"by {foreign}"


def _delayed(journal: Journal, service: Service, job_id: str, asked: float) -> tuple[str, str]:
    _await("the delayed reminder", lambda: journal.of(job_id, EventKind.SUCCEEDED), DELAY + 15)
    after = next(at for path, _, _, at in service.calls if path == "/remind") - asked
    if not DELAY <= after <= DELAY + 3:
        raise DidNotHappen(f"the reminder came after {after:.1f} s, not after {DELAY} s")
    return "delayed job came when due", f"asked for {DELAY} s, ran after {after:.2f} s, waited in RabbitMQ only"


def _given_up_and_replayed(
    broker: RunningBroker, journal: Journal, job_id: str, clip: Path, broken: Path
) -> Iterator[tuple[str, str]]:
    """The operator's part, with the commands an operator types."""
    _await("the broken upload's dead letter", lambda: journal.of(job_id, EventKind.DEAD), 30)
    out.print("\n[bold]an operator reviews what was given up[/bold]")
    listed = json.loads(_command(broker, "dlq", "list", "--json"))
    letter = next((letter for letter in listed if letter["id"] == job_id), None)
    if letter is None:
        raise DidNotHappen(f"the broken upload is not in the dead-letter queue, which holds {listed}")
    _command(broker, "dlq", "list", show=True)
    _command(broker, "dlq", "show", job_id, show=True, lines=25)
    yield "given up, waits for review", f"{letter['reason']}: {letter['error_message'].split(':')[0]}"
    shutil.copy(clip, broken)
    out.print("  [dim]the file is repaired; now the job may run again[/dim]")
    _command(broker, "dlq", "replay", job_id, "--yes", "--because", "file repaired", show=True)
    _await("the replayed job", lambda: journal.of(job_id, EventKind.SUCCEEDED), 60)
    if any(letter["id"] == job_id for letter in json.loads(_command(broker, "dlq", "list", "--json"))):
        raise DidNotHappen("the job is still in the dead-letter queue after its replay")
    made = ffmpeg.probe(FOLDER / "7" / "7-480p.mp4")
    yield "replayed by an operator", f"done: {made.width}x{made.height}, and its dead letter is gone"


def _ticked_through_a_crash(broker: RunningBroker, journal: Journal) -> tuple[str, str]:
    """Two schedulers; the active one is killed; no tick is missing and none came twice."""
    out.print("\n[bold]two schedulers tick once a second, and the active one is killed[/bold]")
    (FOLDER / "rmqjobs.toml").write_text('[overrides."video.sync"]\nevery = "1s"\n')
    scheduler = ("scheduler", "--plugin", "video")
    with (
        _role(broker, "scheduler-1", *scheduler, ready="activated") as first,
        _role(broker, "scheduler-2", *scheduler, ready="on standby"),
    ):
        _await("some ticks", lambda: len(journal.of_type("video.sync-uploads", EventKind.SUCCEEDED)) >= 3, 15)  # noqa: PLR2004
        _command(broker, "schedules", "list", show=True)
        first.kill()
        killed = time.time()
        out.print(f"  [red]kill -9 {first.pid}[/red]")
        _await("the next active one", lambda: "activated" in (FOLDER / "scheduler-2.log").read_text(), 10)
        before = len(journal.of_type("video.sync-uploads", EventKind.TICKED))
        _await("more ticks", lambda: len(journal.of_type("video.sync-uploads", EventKind.TICKED)) >= before + 3, 15)
        time.sleep(1)
    activated = [event.at.timestamp() for event in journal.events if event.kind is EventKind.ACTIVATED]
    # The killed one takes its last half second of the journal with it: what ran is what counts.
    ids = sorted({event.job for event in journal.of_type("video.sync-uploads", EventKind.SUCCEEDED)})
    planned = [datetime.fromisoformat(job_id.partition("@")[2]) for job_id in ids]
    if planned != [planned[0] + timedelta(seconds=number) for number in range(len(planned))]:
        raise DidNotHappen(f"ticks are missing or doubled: {ids}")
    return (
        "ticked through a kill -9",
        f"{len(ids)} ticks, each once; the second scheduler took over in {activated[-1] - killed:.2f} s",
    )


# -- the parts


@contextmanager
def _broker() -> Iterator[RunningBroker]:
    with out.status("starting RabbitMQ …"):
        context = running_broker(directory=ROOT / ".broker")
        started = time.monotonic()
        broker = context.__enter__()
    out.print(f"  [green]✓[/green] {broker.how} [dim]({time.monotonic() - started:.1f} s)[/dim]")
    try:
        yield broker
    finally:
        context.__exit__(*sys.exc_info())


def _worker(broker: RunningBroker) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return _role(broker, "worker", "worker", "--plugin", "video", ready="worker ready")


@contextmanager
def _role(broker: RunningBroker, name: str, *arguments: str, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """`rmqjobs …` as a process of its own, with a log file of that name; drained at the end, unless it was killed."""
    path = FOLDER / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen([*CLI, *arguments], env=_environment(broker), cwd=FOLDER, stdout=log, stderr=log)
    try:
        _await(f"the {name}'s start", lambda: ready in path.read_text() or process.poll() is not None, 30)
        if process.poll() is not None:
            raise DidNotHappen(f"the {name} ended with {process.returncode}: see {path}")
        out.print(f"  [green]✓[/green] rmqjobs {' '.join(arguments)} [dim](process {process.pid})[/dim]")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise DidNotHappen(f"the {name} drained with exit code {code}")


@contextmanager
def _journal(broker: RunningBroker) -> Iterator[Journal]:
    """Follows the journal on a thread of its own, from now on."""
    journal, now = Journal(), datetime.now(UTC).isoformat()
    loop = asyncio.new_event_loop()

    async def read() -> None:
        async for event in follow(_settings(broker), start=now):
            journal.events.append(event)

    task = loop.create_task(read())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield journal
    finally:
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.call_later, 0.5, loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            busy = self.path == "/announce" and len(service.answers("/announce", 503)) < 2  # noqa: PLR2004 - twice
            status = 503 if busy else 200
            service.calls.append((self.path, body, status, time.time()))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _publish_from_a_shell(broker: RunningBroker, service: Service) -> str:
    """Publishes with a shell script where there is a management API, else with amqp-publish, a C program."""
    payload = json.dumps({"video_id": "from-a-shell", "url": f"{service.url}/from-a-shell"})
    if broker.management_url:
        script = ROOT / "examples" / "other_languages" / "publish.sh"
        vhost = quote(_settings(broker).broker.vhost, safe="")
        command, name = [str(script), broker.management_url, "video.announce", payload, vhost], "a bash script over HTTP"
    elif shutil.which("amqp-publish"):
        command = [
            "amqp-publish",
            "--url",
            broker.url.rstrip("/"),
            "-e",
            f"{PREFIX}.jobs",
            "-r",
            "video.announce",
            "-p",
            "-b",
            payload,
        ]
        name = "amqp-publish, a C program"
    else:
        raise DidNotHappen("to publish without Python, set RMQJOBS_MANAGEMENT_URL, or install amqp-publish (amqp-tools)")
    ran = subprocess.run(command, env=_environment(broker), capture_output=True, text=True, check=False)
    if ran.returncode:
        raise DidNotHappen(f"{name} failed: {ran.stderr.strip()}")
    return name


def _command(broker: RunningBroker, *arguments: str, show: bool = False, lines: int = 20) -> str:
    ran = subprocess.run([*CLI, *arguments], env=_environment(broker), capture_output=True, text=True, check=False)
    if ran.returncode:
        raise DidNotHappen(f"rmqjobs {' '.join(arguments)} ended with {ran.returncode}: {ran.stderr.strip()}")
    if show:
        out.print(f"\n  [bold cyan]$ rmqjobs {' '.join(arguments)}[/bold cyan]")
        for line in (ran.stdout + ran.stderr).rstrip().splitlines()[:lines]:
            out.print(f"  {line[: out.width - 4]}", markup=False)
    return ran.stdout


def _environment(broker: RunningBroker) -> dict[str, str]:
    return {
        **os.environ,
        "RMQJOBS_URL": broker.url,
        "RMQJOBS_PREFIX": PREFIX,
        "RMQJOBS_LOG_FORMAT": "console",
        "VIDEO_LIBRARY": str(FOLDER / "library"),
    }


def _settings(broker: RunningBroker) -> Settings:
    return Settings(url=broker.url, prefix=PREFIX)


def _make_clip(path: Path) -> Path:
    ffmpeg.make_clip(path, seconds=CLIP_SECONDS, width=1920, height=1080)
    return path


def _step(what: str, work: Callable[[], Path]) -> Path:
    started = time.monotonic()
    with out.status(f"{what} …"):
        result = work()
    out.print(f"  [green]✓[/green] {what} [dim]({time.monotonic() - started:.1f} s)[/dim]")
    return result


def _await(what: str, condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DidNotHappen(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def _show_tail(path: Path) -> None:
    if path.exists():
        out.print(f"[dim]the end of {path}:[/dim]")
        out.print(path.read_text(errors="replace")[-2000:], markup=False)


def _summary(rows: list[tuple[str, str]], seconds: float) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2))
    for what, how in rows:
        table.add_row("[green]✓[/green]", f"[bold]{what}[/bold]", how)
    out.print("\n[bold]all of it happened[/bold]")
    out.print(table)
    out.print(f"\n  {seconds:.0f} s in all; files and logs in {FOLDER.name}/")
    out.print("  nothing is left running. Next: README.md, a plugin in 15 lines\n")


if __name__ == "__main__":
    sys.exit(main())
