"""`rmqjobs jobs cancel`: jobs that wait or are delayed do not run; those that run are stopped as their pool can."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from rmqjobs.cli.confirming import confirm
from rmqjobs.cli.errors import FAILED, PARTLY, USAGE, fail, say
from rmqjobs.cli.jobs import the_one
from rmqjobs.cli.known import who
from rmqjobs.cli.options import Common
from rmqjobs.cli.queues import Yes
from rmqjobs.lifecycle import State, due_at
from rmqjobs.operations.operator import operator
from rmqjobs.settings import Settings
from rmqjobs.tracking import Life, find_all

STOPPED_WITHIN = 10.0  # seconds; a thread that does not return to Python is named by its worker after five
_LOOK_EVERY = 0.3


def cancel(
    ids: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    because: str = "",
    yes: Yes = False,
    common: Common | None = None,
) -> int:
    """Cancel jobs: those that wait or are delayed do not run, those that run are stopped as their pool can.

    Parameters
    ----------
    ids
        A job's id, or a unique beginning of it; of several jobs the whole ids. - reads them from stdin, one on each line.
    because
        Why; the journal keeps it.
    yes
        Do not ask, where there is more than one.
    """
    settings, now = (common or Common()).settings(), datetime.now(UTC)
    given = [line.strip() for line in sys.stdin if line.strip()] if ids == ["-"] else ids
    if not given:
        fail("no id is given", USAGE)
    if unknown := [each for each in given if each.startswith("-")]:
        fail(f"{unknown[0]!r} is neither an option nor an id", USAGE)
    lives = [the_one(settings, given[0], must_be_known=False)] if len(given) == 1 else asyncio.run(find_all(settings, given))
    ended = [life for life in lives if life.records and life.state(now).is_end]
    for life in ended:
        hint = f". See: rmqjobs dlq drop {life.id}" if life.state(now) is State.DEAD else ""
        say(f"{life.id} is {life.state(now)}: it is not cancelled{hint}")
    lives = [life for life in lives if life not in ended]
    if lives and len(given) > 1:
        confirm(f"cancel {len(lives):,}", yes=yes)
    running = asyncio.run(_cancel(settings, lives, because)) if lives else []
    for life in lives:
        say(_outcome(life, now, still_runs=life.id in running))
    if ended or running:
        return PARTLY if len(lives) > len(running) else FAILED
    return 0


def _outcome(life: Life, now: datetime, *, still_runs: bool) -> str:
    if still_runs:
        return f"{life.id} still runs: its handler cannot be interrupted now. See: rmqjobs workers stacks"
    if not life.records:
        return f"{life.id} is not seen yet: it is cancelled if it comes"
    return f"{life.id} was {life.state(now)}, and is cancelled"


async def _cancel(settings: Settings, lives: Sequence[Life], because: str) -> list[str]:
    """Cancels, and returns the ids of those that were running and have not stopped."""
    now = datetime.now(UTC)
    due = max((at for life in lives if life.records and (at := due_at(life.records[-1])) is not None), default=None)
    async with operator(settings, by=who()) as at_work:
        await at_work.cancel([(life.id, life.type) for life in lives], because=because, due=due)
    running = [life.id for life in lives if life.records and life.state(now) is State.RUNNING]
    try:
        async with asyncio.timeout(STOPPED_WITHIN):
            while running:
                await asyncio.sleep(_LOOK_EVERY)
                running = [life.id for life in await find_all(settings, running) if not _has_stopped(life)]
    except TimeoutError:
        pass
    return running


def _has_stopped(life: Life) -> bool:
    """Whether the worker that ran it has said how that ended."""
    return "by" not in life.records[-1].data and life.state(datetime.now(UTC)) is not State.RUNNING
