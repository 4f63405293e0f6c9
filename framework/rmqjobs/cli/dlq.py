"""`rmqjobs dlq list | show | replay | drop | restore | stats`: reviews dead letters, straight on their queues."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, validators

from rmqjobs.amqp.reviewing import desk
from rmqjobs.cli.errors import FAILED, NOT_FOUND, PARTLY, USAGE, fail, say
from rmqjobs.cli.letters import COLUMNS, counts, print_whole, record, row
from rmqjobs.cli.options import Common, Flag, Words, as_duration
from rmqjobs.cli.output import age, print_json, print_table
from rmqjobs.deadletters.review import Outcome, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import ConfigurationError
from rmqjobs.plugins import load
from rmqjobs.settings import Settings
from rmqjobs.wire.deadletters import DeadLetter

app = cyclopts.App(name="dlq", help="Review dead letters, straight on their queues: looking changes nothing.")

_PREVIEW = 10

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


@Parameter(name="*")
@dataclass(frozen=True)
class Filter:
    """Which dead letters."""

    queue: Words = None
    """Only this work queue; repeat it for several. All of the installed plugins' when none is named."""
    type: Words = None
    """Only this job type; repeat it for several."""
    error: str = ""
    """Only errors whose class or message contains this."""
    reason: str = ""
    """Only this reason, such as 'attempts exhausted'."""
    fingerprint: str = ""
    """Only failures equal to that one."""
    older: str | None = None
    """Only those that died at least this long ago, such as 2h."""
    newer: str | None = None
    """Only those that died at most this long ago, such as 1d."""

    def selection(self, ids: tuple[str, ...] = ()) -> Selection:
        """As the review takes it."""
        return Selection(
            tuple(self.queue or ()),
            ids,
            tuple(self.type or ()),
            self.error,
            self.reason,
            self.fingerprint,
            _duration("--older", self.older),
            _duration("--newer", self.newer),
        )


@Parameter(name="*")
@dataclass(frozen=True)
class Care:
    """How an action is carried out."""

    all: Flag = False
    """Act on every dead letter; needed when no filter is given."""
    limit: Count = None
    """Act on so many at most."""
    because: str = ""
    """Why; written to the journal."""
    dry_run: Flag = False
    """Say what would be done, and stop."""
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False
    """Do not ask."""
    json: Flag = False
    """Print JSON."""


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
        Show so many at most.
    dropped
        List the dropped ones instead.
    json
        Print JSON.
    """
    which = which or Filter()
    settings = (common or Common()).settings()
    letters = asyncio.run(_find(settings, which, which.selection(), dropped=dropped, limit=limit))
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
    letters = asyncio.run(_find(settings, which, which.selection((job_id,))))
    if not letters:
        fail(f"no dead letter with the id {job_id!r}. List them with: rmqjobs dlq list", NOT_FOUND)
    if len({letter.id for letter in letters}) > 1:
        fail(f"{len(letters)} dead letters begin with {job_id!r}. Give more of the id", USAGE)
    if json:
        print_json(record(letters[0], whole=True))
    else:
        print_whole(letters[0])


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
    care: Care | None = None,
    common: Common | None = None,
) -> int:
    """Publish dead letters again, from their first attempt.

    Parameters
    ----------
    ids
        Job ids, or unique beginnings of them.
    rate
        So many a second at most.
    """

    def act(review: Review, queue: str, selection: Selection, limit: int, because: str) -> Awaitable[Outcome]:
        return review.replay(queue, selection, limit=limit, because=because, rate=rate)

    return _act(common, which, ids, care, "replay", act)


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

    def act(review: Review, queue: str, selection: Selection, limit: int, because: str) -> Awaitable[Outcome]:
        return review.drop(queue, selection, limit=limit, because=because)

    return _act(common, which, ids, care, "drop", act)


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

    def act(review: Review, _queue: str, selection: Selection, limit: int, because: str) -> Awaitable[Outcome]:
        return review.restore(selection, limit=limit, because=because)

    return _act(common, which, ids, care, "restore", act)


Action = Callable[[Review, str, Selection, int, str], Awaitable[Outcome]]


def _act(
    common: Common | None, which: Filter | None, ids: list[str] | None, care: Care | None, verb: str, action: Action
) -> int:
    """Preview, confirmation, action, summary: the same for every verb."""
    which, care, settings = which or Filter(), care or Care(), (common or Common()).settings()
    selection = _checked(which.selection(tuple(ids or ())), care, verb)
    found = asyncio.run(_find(settings, which, selection, dropped=verb == "restore", limit=care.limit))
    _preview(found, selection, care, verb)
    if care.dry_run:
        say(f"dry run: nothing was done. To {verb} them, run it without --dry-run")
        return 0
    _confirm(care, verb, len(found))
    counts = Counter("" if verb == "restore" else letter.queue for letter in found)
    outcome = asyncio.run(_carry_out(settings, selection, counts, action, care.because))
    return _report(outcome, verb, as_json=care.json)


def _checked(selection: Selection, care: Care, verb: str) -> Selection:
    """Refuses what would mean everything by mistake."""
    if "" in selection.ids:
        fail("an id is empty. Is a variable unset?", USAGE)
    if selection.is_empty and not care.all:
        fail(f"say which dead letters to {verb}: ids, a filter such as --type, or --all", USAGE)
    return selection


def _preview(found: list[DeadLetter], selection: Selection, care: Care, verb: str) -> None:
    if not found:
        fail(f"no dead letter matches: {selection.describe()}", NOT_FOUND)
    if ambiguous := selection.ambiguous(found):
        fail(f"several dead letters begin with {', '.join(map(repr, ambiguous))}. Give more of the id", USAGE)
    say(f"{verb} {len(found):,}: {selection.describe()}")
    if not care.json:
        print_table(COLUMNS, map(row, found[:_PREVIEW]))
        if len(found) > _PREVIEW:
            say(f"… and {len(found) - _PREVIEW:,} more")


def _confirm(care: Care, verb: str, count: int) -> None:
    if care.yes:
        return
    if not sys.stdin.isatty():
        fail(f"not confirmed. To {verb} these {count:,}, add --yes", USAGE)
    sys.stderr.write(f"{verb} {count:,}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("nothing was done", USAGE)


def _report(outcome: Outcome, verb: str, *, as_json: bool) -> int:
    if as_json:
        failed = [{"id": letter.id, "error": why} for letter, why in outcome.failed]
        print_json({"action": verb, "done": [letter.id for letter in outcome.done], "failed": failed})
    for letter, why in outcome.failed[:10]:
        say(f"not done: {letter.id}: {why}")
    say(f"{verb}: {len(outcome.done):,} done, {len(outcome.failed):,} failed")
    if outcome.failed:
        return PARTLY if outcome.done else FAILED
    return 0


# -- the review behind the commands


@asynccontextmanager
async def _review(settings: Settings) -> AsyncIterator[Review]:
    async with desk(settings) as connection:
        yield Review(connection, settings, by=f"{_user()}@{socket.gethostname()}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return str(os.getuid())


async def _queues(review: Review, settings: Settings, wanted: list[str] | None) -> list[str]:
    known = wanted or sorted(
        {handler.queue for handler in load(settings.plugins, allowed=settings.allowed_plugins).handlers.values()}
    )
    queues = await review.queues(known)
    missing = set(wanted or ()) - set(queues)
    if missing:
        there = await review.queues(
            sorted({handler.queue for handler in load(settings.plugins, allowed=settings.allowed_plugins).handlers.values()})
        )
        hint = f"There are: {', '.join(there) or 'none'}. {_where_to_look()}"
        raise ConfigurationError("--queue", f"{', '.join(sorted(missing))} has no dead-letter queue", hint)
    if wanted:
        return [queue for queue in queues if queue in wanted]
    if not queues:
        say(f"no dead-letter queue was found. {_where_to_look()}")
    return queues


def _where_to_look() -> str:
    return "Queues are known from installed plugins, and from the broker's management API where it answers"


async def _find(
    settings: Settings, which: Filter, selection: Selection, *, dropped: bool = False, limit: int | None = None
) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async with _review(settings) as review:
        if dropped:
            return [letter async for letter in review.dropped(selection, limit=limit)]
        for queue in await _queues(review, settings, which.queue):
            left = None if limit is None else limit - len(found)
            if left != 0:
                found += [letter async for letter in review.letters(queue, selection, limit=left)]
    return found


async def _carry_out(settings: Settings, selection: Selection, counts: dict[str, int], action: Action, because: str) -> Outcome:
    """Acts on what the preview counted, and on nothing that came after it."""
    whole = Outcome()
    async with _review(settings) as review:
        for queue, count in sorted(counts.items()):
            outcome = await action(review, queue, selection, count, because)
            whole.done += outcome.done
            whole.failed += outcome.failed
    return whole


async def _stats(settings: Settings, wanted: list[str] | None) -> tuple[list[dict[str, Any]], int]:
    rows = []
    async with _review(settings) as review:
        for queue in await _queues(review, settings, wanted):
            counted = await review.stats(queue)
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
        return rows, await review.unrouted()


def _duration(option: str, text: str | None) -> timedelta | None:
    return None if text is None else as_duration(option, text)
