"""`rmqjobs events`: the journal, as lines."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import Parameter

from rmqjobs.cli.options import Common, Words
from rmqjobs.cli.output import clean, console, print_json_line
from rmqjobs.errors import ConfigurationError
from rmqjobs.events import Event, EventKind
from rmqjobs.journal import follow as follow_journal
from rmqjobs.settings import Settings
from rmqjobs.wire.events import as_record

_COLOURS = {EventKind.SUCCEEDED: "green", EventKind.DEAD: "red", EventKind.RETRIED: "yellow", EventKind.SKIPPED: "yellow"}


def events(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    kind: Words = None,
    type: Words = None,  # noqa: A002 - the option's name
    job: str | None = None,
    json: bool = False,
    common: Common | None = None,
) -> None:
    """Print what happened to jobs; JSON lines in a pipe.

    Parameters
    ----------
    follow
        Wait for more, instead of ending at the last record.
    start
        Where to begin: first, next, an offset or an ISO 8601 time; by default first, or next with --follow.
    kind
        Only these kinds, such as dead or misfired; a wrong one lists them all.
    type
        Only these job types.
    job
        Only jobs whose id begins like this.
    json
        JSON lines on a terminal too.
    """
    settings = (common or Common()).settings()
    unknown = set(kind or ()) - {each.value for each in EventKind}
    if unknown:
        known = ", ".join(each.value for each in EventKind)
        raise ConfigurationError("--kind", f"{', '.join(sorted(unknown))} is not a kind of event", f"Kinds are: {known}")

    def wanted(event: Event) -> bool:
        return (
            (not kind or event.kind.value in kind)
            and (not type or event.type in type)
            and (not job or event.job.startswith(job))
        )

    as_json = json or not sys.stdout.isatty()
    place = start or ("next" if follow else "first")
    asyncio.run(_print(settings, place, follow=follow, wanted=wanted, as_json=as_json))


async def _print(settings: Settings, start: str, *, follow: bool, wanted: object, as_json: bool) -> None:
    terminal = console()
    async for event in follow_journal(settings, start=start, stop_at_end=not follow):
        if not wanted(event):  # type: ignore[operator]
            continue
        if as_json:
            print_json_line(as_record(event))
        else:
            terminal.print(_line(event))


def _line(event: Event) -> str:
    data = " ".join(f"[dim]{name}=[/dim]{clean(value)}" for name, value in event.data.items())
    colour = _COLOURS.get(event.kind, "cyan")
    at = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"[dim]{at}[/dim] [{colour}]{event.kind.value:<10}[/{colour}] {clean(event.type):<24} {clean(event.job)} {data}"
