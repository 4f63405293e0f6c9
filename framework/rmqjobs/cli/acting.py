"""`rmqjobs dlq replay | drop | restore`: preview, confirmation, action and summary are the same for each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Literal

from cyclopts import Parameter

from rmqjobs.cli.confirming import confirm
from rmqjobs.cli.errors import FAILED, GIVEN_UP, NOT_FOUND, PARTLY, USAGE, fail, say
from rmqjobs.cli.letters import COLUMNS, row
from rmqjobs.cli.options import Common, Flag
from rmqjobs.cli.output import print_json, print_table
from rmqjobs.cli.progress import progress
from rmqjobs.cli.reviews import Count, Filter, find, review
from rmqjobs.deadletters.canary import replay_growing
from rmqjobs.deadletters.review import Order, Outcome, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.settings import Settings
from rmqjobs.wire.deadletters import DeadLetter

Verb = Literal["replay", "drop", "restore"]
_PREVIEW = 10


@Parameter(name="*")
@dataclass(frozen=True)
class Care:
    """How an action is carried out."""

    all: Flag = False
    """Act on every dead letter; needed when no filter is given."""
    limit: Count = None
    """Act on at most this many."""
    because: str = ""
    """Why; written to the journal."""
    dry_run: Flag = False
    """Say what would be done, and stop."""
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False
    """Do not ask."""
    json: Flag = False
    """Print JSON."""


def act(
    verb: Verb,
    ids: list[str] | None,
    which: Filter | None,
    care: Care | None,
    common: Common | None,
    *,
    rate: float | None = None,
    canary: timedelta | None = None,
) -> int:
    """Shows what would be done, asks, and does it; returns the exit code. A canary is how long a step of it may take."""
    which, care, settings = which or Filter(), care or Care(), (common or Common()).settings()
    asked = selection = _checked(which.selection(tuple(ids or ())), care, verb)
    found = asyncio.run(find(settings, which, selection, dropped=verb == "restore", limit=care.limit))
    selection = _meant(found, selection)
    found = [letter for letter in found if not selection.ids or letter.id in selection.ids]
    _preview(found, asked, care, verb)
    if care.dry_run:
        say(f"dry run: nothing was done. To {verb} them, run it without --dry-run")
        return 0
    confirm(f"{verb} {len(found):,}", yes=care.yes)
    counts = Counter("" if verb == "restore" else letter.queue for letter in found)
    outcome = asyncio.run(_carry_out(verb, settings, selection, counts, Order(0, care.because, rate), canary))
    return _report(outcome, verb, as_json=care.json)


async def _carry_out(
    verb: Verb, settings: Settings, selection: Selection, counts: Mapping[str, int], order: Order, canary: timedelta | None
) -> Outcome:
    """Acts on what the preview counted, and on nothing that came after it."""
    whole = Outcome()
    async with review(settings) as looking:
        with progress(verb, sum(counts.values())) as advance:
            for queue, count in sorted(counts.items()):
                here = replace(order, limit=count, progress=advance)
                if canary is None:
                    outcome = await _action(looking, verb, queue, selection, here)
                else:
                    outcome = await replay_growing(looking, settings, queue, selection, here, patience=canary, told=say)
                whole.done += outcome.done
                whole.failed += outcome.failed
                whole.stopped = outcome.stopped
                if whole.stopped:
                    break
    return whole


def _action(looking: Review, verb: Verb, queue: str, selection: Selection, order: Order) -> Awaitable[Outcome]:
    match verb:
        case "replay":
            return looking.replay(queue, selection, order)
        case "drop":
            return looking.drop(queue, selection, order)
        case "restore":
            return looking.restore(selection, order)


def _checked(selection: Selection, care: Care, verb: Verb) -> Selection:
    """Refuses a selection that would mean everything by mistake."""
    if "" in selection.ids:
        fail("an id is empty. Is a variable unset?", USAGE)
    if selection.is_empty and not care.all:
        fail(f"say which dead letters to {verb}: ids, a filter such as --type, or --all", USAGE)
    return selection


def _meant(found: list[DeadLetter], selection: Selection) -> Selection:
    """The selection by whole ids."""
    if not found:
        fail(f"no dead letter matches: {selection.describe()}", NOT_FOUND)
    if ambiguous := selection.ambiguous(found):
        fail(f"several dead letters begin with {', '.join(map(repr, ambiguous))}. Give more of the id", USAGE)
    return selection.of(found)


def _preview(found: list[DeadLetter], selection: Selection, care: Care, verb: Verb) -> None:
    say(f"{verb} {len(found):,}: {selection.describe()}")
    if not care.json:
        print_table(COLUMNS, map(row, found[:_PREVIEW]))
        if len(found) > _PREVIEW:
            say(f"… and {len(found) - _PREVIEW:,} more")


def _report(outcome: Outcome, verb: Verb, *, as_json: bool) -> int:
    if as_json:
        failed = [{"id": letter.id, "error": why} for letter, why in outcome.failed]
        done = [letter.id for letter in outcome.done]
        stopped = {"stopped": outcome.stopped} if outcome.stopped else {}
        print_json({"action": verb, "done": done, "failed": failed, **stopped})
    for letter, why in outcome.failed[:10]:
        say(f"not done: {letter.id}: {why}")
    say(f"{verb}: {len(outcome.done):,} done, {len(outcome.failed):,} failed")
    if outcome.stopped:
        say(f"stopped: {outcome.stopped}")
        return GIVEN_UP
    if outcome.failed:
        return PARTLY if outcome.done else FAILED
    return 0
