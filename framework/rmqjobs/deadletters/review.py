"""Looks at dead letters and acts on them: replay, drop, restore.

One pass holds every message of a queue unacknowledged and in order. What is acted on is published first, confirmed, and then
acknowledged; everything else goes back where it was. Looking changes nothing, however often.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rmqjobs.amqp.control import MOST_HELD, Desk, Held
from rmqjobs.amqp.management import Management
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import PublishError
from rmqjobs.events import Event, EventKind
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire import deadletters as wire
from rmqjobs.wire import events as wire_events
from rmqjobs.wire.deadletters import DeadLetter
from rmqjobs.wire.jobs import Message

_JOURNAL_BATCH = 500


@dataclass(slots=True)
class Outcome:
    """What an action did.

    Args:
        done: Dead letters acted on.
        failed: Those that could not be, with the reason; they stay where they are.
    """

    done: list[DeadLetter] = field(default_factory=list)
    failed: list[tuple[DeadLetter, str]] = field(default_factory=list)


@dataclass(slots=True)
class Stats:
    """Numbers of one dead-letter queue; those by reason, type and fingerprint are of what one review can hold."""

    queue: str
    depth: int
    oldest: datetime | None = None
    by_reason: Counter[str] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)
    by_fingerprint: Counter[str] = field(default_factory=Counter)

    def count(self, letter: DeadLetter) -> None:
        """One more."""
        if letter.failed_at is not None and (self.oldest is None or letter.failed_at < self.oldest):
            self.oldest = letter.failed_at
        self.by_reason[letter.reason] += 1
        self.by_type[letter.type] += 1
        self.by_fingerprint[letter.fingerprint] += 1


class Review:
    """One operator at work.

    Args:
        desk: The connection.
        settings: Prefix and management API.
        by: Who acts, for the journal.
    """

    def __init__(self, desk: Desk, settings: Settings, *, by: str) -> None:
        self._desk, self._settings, self._by = desk, settings, by
        self._names = Names(settings.prefix)

    async def queues(self, known: Sequence[str]) -> list[str]:
        """Work queues that have a dead-letter queue: the known ones, and all the broker has if its management API is set."""
        candidates = set(known)
        if self._settings.management_url:
            start, end = f"{self._names.prefix}.", ".dead"
            names = await Management(self._settings.management_url).queue_names(self._settings.broker.vhost)
            candidates |= {name[len(start) : -len(end)] for name in names if name.startswith(start) and name.endswith(end)}
        return [queue for queue in sorted(candidates) if await self._desk.depth(self._names.dead_queue(queue)) is not None]

    async def unrouted(self) -> int:
        """Jobs that wait for a worker that knows their type."""
        return await self._desk.depth(self._names.unrouted) or 0

    async def letters(self, queue: str, selection: Selection, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """The dead letters of a work queue, oldest first, `limit` at the most."""
        async for _, letter in self._matching(self._names.dead_queue(queue), queue, selection, limit):
            yield letter

    async def dropped(self, selection: Selection, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """The dropped ones, that can be restored."""
        async for _, letter in self._matching(self._names.dropped, "", selection, limit):
            yield letter

    async def stats(self, queue: str) -> Stats:
        """Counts the dead letters of a work queue."""
        stats = Stats(queue, await self._desk.depth(self._names.dead_queue(queue)) or 0)
        async for letter in self.letters(queue, Selection()):
            stats.count(letter)
        # What a review before this one held is back in the queue only a moment after that has ended.
        stats.depth = max(stats.depth, stats.by_reason.total())
        return stats

    async def replay(
        self, queue: str, selection: Selection, *, limit: int, because: str = "", rate: float | None = None
    ) -> Outcome:
        """Publishes up to `limit` jobs again, from their first attempt, at most `rate` a second."""

        def message(held: Held, letter: DeadLetter) -> Message:
            return wire.replay(self._names, held, letter)

        source = self._names.dead_queue(queue)
        return await self._act(source, queue, selection, message, EventKind.REPLAYED, limit, because, rate)

    async def drop(self, queue: str, selection: Selection, *, limit: int, because: str = "") -> Outcome:
        """Takes up to `limit` dead letters out of review; for a while they can be restored."""

        def message(held: Held, letter: DeadLetter) -> Message:
            return wire.drop(self._names, held, letter, at=datetime.now(UTC), because=because)

        source = self._names.dead_queue(queue)
        return await self._act(source, queue, selection, message, EventKind.DROPPED, limit, because)

    async def restore(self, selection: Selection, *, limit: int, because: str = "") -> Outcome:
        """Brings up to `limit` dropped dead letters back to their queues."""

        def message(held: Held, letter: DeadLetter) -> Message:
            return wire.restore(self._names, held, letter)

        return await self._act(self._names.dropped, "", selection, message, EventKind.RESTORED, limit, because)

    async def _matching(
        self, source: str, queue: str, selection: Selection, limit: int | None
    ) -> AsyncIterator[tuple[Held, DeadLetter]]:
        """Up to `limit` of them, held; without a filter no more than these are taken."""
        now, found = datetime.now(UTC), 0
        most = limit if limit is not None and selection.is_empty else MOST_HELD
        async with self._desk.hold(source, most=most) as messages:
            async for held in messages:
                letter = wire.read(held, queue)
                if selection.matches(letter, now):
                    yield held, letter
                    found += 1
                    if found == limit:
                        return

    async def _act(
        self,
        source: str,
        queue: str,
        selection: Selection,
        message: Callable[[Held, DeadLetter], Message],
        kind: EventKind,
        limit: int,
        because: str,
        rate: float | None = None,
    ) -> Outcome:
        outcome = Outcome()
        matching = self._matching(source, queue, selection, limit)
        try:
            async for held, letter in matching:
                try:
                    await self._desk.publish(message(held, letter))
                except PublishError as error:
                    outcome.failed.append((letter, str(error)))
                    continue
                await held.remove()
                outcome.done.append(letter)
                if rate:
                    await asyncio.sleep(1 / rate)
        finally:
            await matching.aclose()  # type: ignore[attr-defined]
            await self._journal(kind, outcome.done, because)
        return outcome

    async def _journal(self, kind: EventKind, letters: Sequence[DeadLetter], because: str) -> None:
        """Who did what to which job, and why."""
        for start in range(0, len(letters), _JOURNAL_BATCH):
            at, data = datetime.now(UTC), {"because": because} if because else {}
            events = [
                Event(kind, at, letter.id, letter.type, letter.queue, letter.attempts, data, self._by)
                for letter in letters[start : start + _JOURNAL_BATCH]
            ]
            await self._desk.publish(wire_events.batch(self._names, map(wire_events.encode, events), source=self._by))
