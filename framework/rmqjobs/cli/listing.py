"""`rmqjobs jobs list`: jobs by what they are, from a model of the journal that is made for this one answer."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Group
from rich.live import Live

from rmqjobs.cli.errors import USAGE, fail, say
from rmqjobs.cli.options import Common, Flag, as_duration
from rmqjobs.cli.output import age, clean, console, print_json, print_table, shortened, table_of
from rmqjobs.cli.progress import reading
from rmqjobs.lifecycle import SKEW, State
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.filters import KEYS, JobFilter, parse
from rmqjobs.readmodel.follower import Follower, Progress, ignore
from rmqjobs.readmodel.queries import Count, JobRow, Page
from rmqjobs.settings import Settings

COLUMNS = ("id", "state", "type", "queue", "attempt", "published", "changed", "what")
SPARE = 4  # lines of a terminal that are not for jobs
_REFRESH = 1.0


def list_(
    *words: str,
    since: str = "1h",
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=validators.Number(gte=1, lte=1_000))] = 50,
    watch: Flag = False,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """List jobs, those that were published last first: rmqjobs jobs list type:video.transcode state:dead since:2h "disk full".

    It reads the journal from --since on, so the longer ago that is, the longer it takes.

    Parameters
    ----------
    words
        Which jobs: type: state: queue: worker: error: since: before: or a text of the id or the error. Values of one kind are
        alternatives.
    since
        Look only at what happened this long ago or later, such as 24h, where the filter does not say.
    limit
        At most this many.
    watch
        Show them anew every second, until Ctrl-C.
    json
        Print JSON.
    """
    now = datetime.now(UTC)
    which = parse(" ".join(_quoted(word) for word in words), now)
    start = which.since or now - as_duration("--since", since)
    if watch and not sys.stdout.isatty():
        fail("--watch needs a terminal. For a program: rmqjobs events --follow", USAGE)
    settings = (common or Common()).settings()
    if watch:
        asyncio.run(_watch(settings, which, start, limit))
        return
    page, count = asyncio.run(_once(settings, which, start, limit))
    if json:
        jobs = [record_of(job) for job in page.jobs]
        print_json({"jobs": jobs, "count": count.jobs, "is_more": count.is_more, "searched_since": start.isoformat()})
        return
    if page.jobs:
        print_table(COLUMNS, map(_row, page.jobs))
    shown = f"{len(page.jobs):,} of " if len(page.jobs) < count.jobs else ""
    found = f"{shown}{count.jobs:,}{'+' if count.is_more else ''} jobs"
    more = "" if which.since else ". For more: --since 24h"
    say(f"{found}, searched since {start.astimezone():%Y-%m-%d %H:%M:%S %Z}{more}")


async def _once(settings: Settings, which: JobFilter, start: datetime, limit: int) -> tuple[Page, Count]:
    with reading("read the journal") as move:
        follower = await _opened(settings, start, move)
        try:
            await follower.catch_up()
            return await follower.ask(lambda queries: (queries.jobs(which, limit=limit), queries.count(which)))
        finally:
            await follower.close()


async def _watch(settings: Settings, which: JobFilter, start: datetime, limit: int) -> None:
    follower = await _opened(settings, start)
    following = asyncio.create_task(follower.run())
    with Live(console=console(), auto_refresh=False) as live:
        while not following.done():
            shown = min(limit, max(live.console.height - SPARE, 1))
            page = await follower.ask(lambda queries: queries.jobs(which, limit=shown))  # noqa: B023 - it is asked at once
            note = follower.problem or f"{len(page.jobs):,} jobs; Ctrl-C ends"
            live.update(Group(table_of(COLUMNS, map(_row, page.jobs)), f"[dim]{clean(note)}[/dim]"), refresh=True)
            await asyncio.sleep(_REFRESH)


async def _opened(settings: Settings, start: datetime, move: Progress = ignore) -> Follower:
    follower = Follower(settings, schema.MEMORY, start=(start - SKEW).isoformat(), progress=move)
    await follower.open()
    return follower


def _quoted(word: str) -> str:
    """A word as it was before the shell took its quotes away."""
    key, colon, value = word.partition(":")
    if " " not in word:
        return word
    return f'{key}:"{value}"' if colon and key in KEYS else f'"{word}"'


def _row(job: JobRow) -> dict[str, object]:
    done, total = ((job.progress or {}).get(name) for name in ("done", "total"))
    progress_text = f"{done} of {total}" if total is not None else f"{done}" if done is not None else ""
    waits = f"until {job.due.astimezone():%Y-%m-%d %H:%M:%S}" if job.due else ""
    failed = job.error if job.state not in (State.DONE, State.RUNNING) else ""
    return {
        "id": job.id,
        "state": job.state,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempt or None,
        "published": age(job.first),
        "changed": age(job.at),
        "what": shortened(", ".join(filter(None, (waits, progress_text if job.state is State.RUNNING else "", failed)))),
    }


def record_of(job: JobRow) -> dict[str, Any]:
    """The JSON of a job in a list: a contract."""
    return asdict(job)
