"""`rmqjobs dlq list | show | groups | stats | replay | drop | restore`: reviews dead letters, straight on their queues."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators

from rmqjobs.cli import acting
from rmqjobs.cli.acting import Care
from rmqjobs.cli.errors import NOT_FOUND, USAGE, fail, say
from rmqjobs.cli.letters import COLUMNS, GROUP_COLUMNS, counts, group_record, group_row, print_whole, record, row
from rmqjobs.cli.options import Common, Flag, Words, as_duration
from rmqjobs.cli.output import age, print_json, print_table
from rmqjobs.cli.reviews import Count, Filter, find, queues_of, review
from rmqjobs.deadletters.groups import Group, groups_of
from rmqjobs.deadletters.selection import Selection
from rmqjobs.settings import Settings

app = cyclopts.App(name="dlq", help="Review dead letters, straight on their queues: looking changes nothing.")


@app.command(name="list")
def list_(
    *,
    which: Filter | None = None,
    limit: Count = None,
    dropped: Flag = False,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """List dead letters, oldest first.

    Parameters
    ----------
    limit
        Show at most this many.
    dropped
        List the dropped ones instead.
    json
        Print JSON.
    """
    which = which or Filter()
    settings = (common or Common()).settings()
    letters = asyncio.run(find(settings, which, which.selection(), dropped=dropped, limit=limit))
    if json:
        print_json([record(letter) for letter in letters])
    elif letters:
        print_table(COLUMNS, map(row, letters))
    else:
        say(_nothing(which.selection(), dropped=dropped))


def _nothing(selection: Selection, *, dropped: bool) -> str:
    if not selection.is_empty:
        return f"no dead letter matches: {selection.describe()}"
    return "no dropped dead letters" if dropped else "no dead letters: every job was done, or is still being tried"


@app.command
def show(job_id: str, /, *, which: Filter | None = None, json: bool = False, common: Common | None = None) -> None:
    """Show one dead letter: payload, error, traceback, headers.

    Parameters
    ----------
    job_id
        Its id, or a unique beginning.
    json
        Print JSON.
    """
    which = which or Filter()
    settings = (common or Common()).settings()
    selection = which.selection((job_id,))
    letters = asyncio.run(find(settings, which, selection))
    if not letters:
        fail(f"no dead letter with the id {job_id!r}. List them with: rmqjobs dlq list", NOT_FOUND)
    if selection.ambiguous(letters):
        fail(f"{len(letters)} dead letters begin with {job_id!r}. Give more of the id", USAGE)
    meant = selection.of(letters)
    letter = next(letter for letter in letters if letter.id in meant.ids)
    if json:
        print_json(record(letter, whole=True))
    else:
        print_whole(letter)


@app.command
def groups(*, queue: Words = None, json: bool = False, common: Common | None = None) -> None:
    """Group dead letters by their cause: equal failures have the same fingerprint.

    Parameters
    ----------
    queue
        Only this work queue.
    json
        Print JSON.
    """
    settings = (common or Common()).settings()
    found = asyncio.run(_groups(settings, queue))
    if json:
        print_json([group_record(group) for group in found])
    elif found:
        print_table(GROUP_COLUMNS, map(group_row, found))
    else:
        say(_nothing(Selection(), dropped=False))


async def _groups(settings: Settings, wanted: list[str] | None) -> list[Group]:
    async with review(settings) as looking:
        return await groups_of(looking, await queues_of(looking, settings, wanted))


@app.command
def stats(*, queue: Words = None, json: bool = False, common: Common | None = None) -> None:
    """Count dead letters by queue, reason, type and fingerprint.

    Parameters
    ----------
    queue
        Only this work queue.
    json
        Print JSON.
    """
    settings = (common or Common()).settings()
    rows, unrouted = asyncio.run(_stats(settings, queue))
    if json:
        print_json({"queues": rows, "unrouted": unrouted})
        return
    if rows:
        print_table(("queue", "dead", "oldest", "reasons", "types", "groups"), rows)
    say(f"{unrouted} unrouted jobs wait for a worker that knows their type")


@app.command
def replay(
    ids: list[str] | None = None,
    /,
    *,
    which: Filter | None = None,
    rate: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None,
    canary: Flag = False,
    patience: str = "1m",
    care: Care | None = None,
    common: Common | None = None,
) -> int:
    """Publish dead letters again, from their first attempt.

    Parameters
    ----------
    ids
        Job ids, or unique beginnings of them.
    rate
        Replay at most this many a second.
    canary
        Replay 1, then 5, 20, 100 and 500 at a time, and stop when one of them fails again; exits with 8 then.
    patience
        With --canary: how long the jobs of one step may take to run.
    """
    step = as_duration("--patience", patience) if canary else None
    return acting.act("replay", ids, which, care, common, rate=rate, canary=step)


@app.command
def drop(
    ids: list[str] | None = None, /, *, which: Filter | None = None, care: Care | None = None, common: Common | None = None
) -> int:
    """Take dead letters out of review; for 30 days they can be restored.

    Parameters
    ----------
    ids
        Job ids, or unique beginnings of them.
    """
    return acting.act("drop", ids, which, care, common)


@app.command
def restore(
    ids: list[str] | None = None, /, *, which: Filter | None = None, care: Care | None = None, common: Common | None = None
) -> int:
    """Bring dropped dead letters back to their dead-letter queue.

    Parameters
    ----------
    ids
        Job ids, or unique beginnings of them.
    """
    return acting.act("restore", ids, which, care, common)


async def _stats(settings: Settings, wanted: list[str] | None) -> tuple[list[dict[str, Any]], int]:
    rows = []
    async with review(settings) as looking:
        for queue in await queues_of(looking, settings, wanted):
            counted = await looking.stats(queue)
            rows.append(
                {
                    "queue": queue,
                    "dead": counted.depth,
                    "oldest": age(counted.oldest),
                    "reasons": counts(counted.by_reason),
                    "types": counts(counted.by_type),
                    "groups": len(counted.by_fingerprint),
                }
            )
        return rows, await looking.unrouted()
