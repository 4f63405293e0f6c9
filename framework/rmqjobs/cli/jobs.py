"""`rmqjobs jobs`: what became of a job, read from the journal; no other process of ours has to run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cyclopts

from rmqjobs.cli.errors import GIVEN_UP, NOT_FOUND, TIMED_OUT, USAGE, fail, say
from rmqjobs.cli.options import Common, as_duration
from rmqjobs.cli.output import clean, console, print_json, print_json_line
from rmqjobs.events import EventKind
from rmqjobs.lifecycle import State
from rmqjobs.wire.events import as_record
from rmqjobs.wire.values import as_json

if TYPE_CHECKING:
    from rmqjobs.settings import Settings
    from rmqjobs.tracking import Life

app = cyclopts.App(name="jobs", help="Where jobs are: list, show, why, logs, wait, cancel.")
app.command("rmqjobs.cli.listing:list_", name="list", help="List jobs by type, state, queue, worker, error, time or text.")
app.command("rmqjobs.cli.cancelling:cancel", name="cancel", help="Cancel jobs that wait, are delayed or run.")
_COLOURS = {"done": "green", "dead": "red", "dropped": "red", "retrying": "yellow", "skipped": "yellow", "cancelled": "yellow"}
_UNSEEN = (
    "nothing is known of {id!r}: it waits and no worker has seen it yet, or it was never published, or the journal, which keeps"
    " 7 days, has forgotten it. Jobs that no queue takes are counted by: rmqjobs dlq stats"
)


@app.command
def show(id: str, /, *, json: bool = False, common: Common | None = None) -> None:  # noqa: A002 - the argument's name
    """Show where a job is.

    Parameters
    ----------
    id
        The job's id, or a unique beginning of it.
    json
        Print JSON, with every record of the journal about it.
    """
    settings = (common or Common()).settings()
    life, now = the_one(settings, id), datetime.now(UTC)
    if json:
        print_json(_record(life, now))
        return
    from rmqjobs.tracking.story import outlook  # noqa: PLC0415 - as below

    state = life.state(now)
    rows: dict[str, object] = {
        "id": life.id,
        "state": state.value,
        "type": life.type,
        "queue": life.queue,
        "attempts": life.attempts or "",
    }
    latest = life.records[-1]
    rows |= {name: latest.data[name] for name in ("reason", "error") if name in latest.data}
    if "result" in latest.data:
        rows["result"] = as_json(latest.data["result"]).decode()
    terminal, width = console(), max(map(len, rows))
    for name, value in rows.items():
        text = clean(value) if value != "" else "-"
        coloured = f"[{_COLOURS.get(text, 'cyan')}]{text}[/]" if name == "state" else text
        terminal.print(f"[bold]{name:<{width}}[/bold]  {coloured}")
    if hint := outlook(life, now, _lost_since(settings, life, now)):
        terminal.print(hint)


@app.command
def why(id: str, /, *, common: Common | None = None) -> None:  # noqa: A002
    """Tell in words what happened to a job, and what comes next.

    Parameters
    ----------
    id
        The job's id, or a unique beginning of it.
    """
    from rmqjobs.tracking.story import outlook, story  # noqa: PLC0415 - as below

    settings = (common or Common()).settings()
    life, now, terminal = the_one(settings, id), datetime.now(UTC), console()
    state = life.state(now).value
    terminal.print(f"[bold]{clean(life.id)}[/bold]  {clean(life.type)}  [{_COLOURS.get(state, 'cyan')}]{state}[/]")
    for moment in story(life):
        terminal.print(f"[dim]{_clock(moment.at)}[/dim]  {clean(moment.text)}")
    if hint := outlook(life, now, _lost_since(settings, life, now)):
        terminal.print(hint)


@app.command
def logs(id: str, /, *, json: bool = False, common: Common | None = None) -> None:  # noqa: A002
    """Print what a job's handler logged with job.log, and its progress.

    Parameters
    ----------
    id
        The job's id, or a unique beginning of it.
    json
        JSON lines.
    """
    life, terminal = the_one((common or Common()).settings(), id), console()
    for record in life.records:
        if record.kind not in (EventKind.LOG, EventKind.PROGRESS):
            continue
        if json:
            print_json_line(as_record(record))
            continue
        fields = " ".join(f"[dim]{name}=[/dim]{clean(value)}" for name, value in record.data.items() if name != "message")
        message = clean(record.data.get("message", record.kind.value))
        terminal.print(f"[dim]{_clock(record.at)}  attempt {record.attempt}[/dim]  {message}  {fields}")


@app.command
def wait(id: str, /, *, timeout: str | None = None, common: Common | None = None) -> int:  # noqa: A002
    """Wait until a job has ended, and print its result.

    Exits with 0 when it is done, 8 when it was given up, dropped or skipped, 124 when the time is over.

    Parameters
    ----------
    id
        The whole id of the job; it need not be published yet.
    timeout
        Wait no longer than this, such as 30s or 5m; without it, as long as it takes.
    """
    limit = as_duration("--timeout", timeout).total_seconds() if timeout is not None else None
    try:
        life = asyncio.run(_end_of((common or Common()).settings(), _given(id), limit))
    except TimeoutError:
        say(f"{id} has not ended in time")
        return TIMED_OUT
    if (state := life.state(datetime.now(UTC))) != "done":
        say(f"{id} is {state}" + (f": {life.because}" if life.because else ""))
        return GIVEN_UP
    if "result" in life.records[-1].data:
        print_json(life.records[-1].data["result"])
    return 0


def the_one(settings: Settings, beginning: str, *, must_be_known: bool = True) -> Life:
    """The job whose id begins like this; exits when there are several or, unless that may be, none: it then has no records."""
    from rmqjobs.tracking import Life, find  # noqa: PLC0415 - reading a stream imports much, and `--help` does not need it

    lives = asyncio.run(find(settings, _given(beginning)))
    if not lives:
        if must_be_known:
            fail(_UNSEEN.format(id=beginning), NOT_FOUND)
        return Life(beginning, [])
    exact = [life for life in lives if life.id == beginning]
    if len(lives) > 1 and not exact:
        some = ", ".join(life.id for life in lives[:3]) + (", …" if len(lives) > 3 else "")  # noqa: PLR2004 - as shown
        fail(f"{beginning!r} is the beginning of {len(lives):,} jobs: {some}", USAGE)
    return (exact or lives)[0]


def _lost_since(settings: Settings, life: Life, now: datetime) -> datetime | None:
    """When the worker that runs the job gave its last sign of life, if that is too long ago."""
    if life.state(now) is not State.RUNNING:
        return None
    from rmqjobs.tracking.processes import latest_beats, lost_since  # noqa: PLC0415 - as above

    return lost_since(asyncio.run(latest_beats(settings)), life, now, settings.beat_interval)


async def _end_of(settings: Settings, job_id: str, seconds: float | None) -> Life:
    from rmqjobs.tracking import until_ended  # noqa: PLC0415 - as above

    async with asyncio.timeout(seconds):
        return await until_ended(settings, job_id)


def _given(job_id: str) -> str:
    if not job_id:
        fail("the id is empty. Is a variable unset?", USAGE)
    return job_id


def _clock(at: datetime) -> str:
    """Local time to the millisecond."""
    return at.astimezone().isoformat(sep=" ", timespec="milliseconds")[:23]


def _record(life: Life, now: datetime) -> dict[str, Any]:
    """The JSON of a job: a contract."""
    return {
        "id": life.id,
        "type": life.type,
        "queue": life.queue,
        "state": life.state(now).value,
        "attempts": life.attempts,
        "records": [as_record(each) for each in life.records],
    }
