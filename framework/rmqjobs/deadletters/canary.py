"""Replays a few dead letters first, then more and more, and stops by itself when one of them fails again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat

from rmqjobs.deadletters.review import Order, Outcome, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.events import EventKind
from rmqjobs.journal import follow
from rmqjobs.lifecycle import SKEW
from rmqjobs.settings import Settings
from rmqjobs.wire.deadletters import DeadLetter

SIZES = (1, 5, 20, 100, 500)  # dead letters of each step; the last size is kept
PATIENCE = timedelta(minutes=1)
RECORDED_WITHIN = timedelta(seconds=2)  # after a job's death, by the same clock: an older record is of that death
_WELL = frozenset({EventKind.SUCCEEDED, EventKind.SNOOZED, EventKind.SKIPPED, EventKind.CANCELLED})
_FAILED = frozenset({EventKind.RETRIED, EventKind.DEAD})


async def replay_growing(
    review: Review,
    settings: Settings,
    queue: str,
    selection: Selection,
    order: Order,
    *,
    patience: timedelta = PATIENCE,
    told: Callable[[str], None],
) -> Outcome:
    """Replays in growing steps; each waits until the jobs of the one before have run.

    Args:
        review: Who replays.
        settings: Where the journal is.
        queue: The work queue, without the prefix.
        selection: Which dead letters.
        order: How many in all, and why.
        patience: How long the jobs of one step may take to run once.
        told: Called with a sentence after each step.

    Returns:
        What was done; `stopped` says why it did not go on, if it did not.

    Raises:
        BrokerError: The journal cannot be read.
    """
    whole, left = Outcome(), order.limit
    for size in chain(SIZES, repeat(SIZES[-1])):
        if not left:
            break
        began = datetime.now(UTC)
        outcome = await review.replay(queue, selection, replace(order, limit=min(size, left)))
        whole.done += outcome.done
        whole.failed += outcome.failed
        left -= len(outcome.done) + len(outcome.failed)
        if not outcome.done:
            break
        whole.stopped = await _trouble(settings, outcome.done, began, patience)
        if whole.stopped:
            break
        told(f"{len(whole.done):,} replayed, and none has failed again")
    return whole


async def _trouble(settings: Settings, letters: Sequence[DeadLetter], began: datetime, patience: timedelta) -> str:
    """Waits until these jobs have run once; returns why not to go on, or nothing."""
    waiting = {letter.id: (letter.failed_at or began) + RECORDED_WITHIN for letter in letters}
    try:
        async with (
            asyncio.timeout(patience.total_seconds()),
            aclosing(follow(settings, start=(began - SKEW).isoformat())) as events,
        ):
            async for event in events:
                if event.job not in waiting:
                    continue
                if event.kind in _FAILED and event.at > waiting[event.job]:
                    return f"{event.job} failed again: {event.data.get('error') or event.data.get('reason')}"
                if event.kind in _WELL:
                    del waiting[event.job]
                if not waiting:
                    break
    except TimeoutError:
        limit = f"{patience.total_seconds():g} s"
        return f"{len(waiting):,} of them have not run within {limit}, so nothing says that they are well"
    return ""
