"""The review behind the commands of `rmqjobs dlq`: which dead letters, of which queues, and as whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter, validators

from rmqjobs.amqp.reviewing import desk
from rmqjobs.cli.errors import say
from rmqjobs.cli.known import WHERE_TO_LOOK, who, work_queues
from rmqjobs.cli.options import Words, as_duration
from rmqjobs.deadletters.review import Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import Settings
from rmqjobs.wire.deadletters import DeadLetter

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
        """The filter as the review takes it."""
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


@asynccontextmanager
async def review(settings: Settings) -> AsyncIterator[Review]:
    """A review by whoever runs this command."""
    async with desk(settings) as connection:
        yield Review(connection, settings, by=who())


async def queues_of(looking: Review, settings: Settings, wanted: list[str] | None) -> list[str]:
    """The wanted work queues, or all that have a dead-letter queue.

    Raises:
        ConfigurationError: One of the wanted ones has none.
    """
    if not wanted:
        found = await looking.queues(work_queues(settings))
        if not found:
            say(f"no dead-letter queue was found. {WHERE_TO_LOOK}")
        return found
    there = await looking.queues(wanted)
    if missing := sorted(set(wanted) - set(there)):
        others = await looking.queues(work_queues(settings))
        hint = f"Known: {', '.join(others) or 'none'}. {WHERE_TO_LOOK}"
        raise ConfigurationError("--queue", f"{', '.join(missing)} has no dead-letter queue", hint)
    return [queue for queue in there if queue in wanted]


async def find(
    settings: Settings, which: Filter, selection: Selection, *, dropped: bool = False, limit: int | None = None
) -> list[DeadLetter]:
    """The dead letters that match, oldest first in each queue, at most `limit`."""
    found: list[DeadLetter] = []
    async with review(settings) as looking:
        if dropped:
            return [letter async for letter in looking.dropped(selection, limit=limit)]
        for queue in await queues_of(looking, settings, which.queue):
            left = None if limit is None else limit - len(found)
            if left != 0:
                found += [letter async for letter in looking.letters(queue, selection, limit=left)]
    return found


def _duration(option: str, text: str | None) -> timedelta | None:
    return None if text is None else as_duration(option, text)
