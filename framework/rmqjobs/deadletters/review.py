"""Looks at dead letters and acts on them: replay, drop, restore.

One look holds every message of a queue unacknowledged and in order. A message that is acted on is first published, then
confirmed, then acknowledged; all others go back where they were. Looking changes nothing, however often it is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import JsonValue

from rmqjobs.amqp import management
from rmqjobs.amqp.holding import HeldMessage
from rmqjobs.amqp.reviewing import Desk, Look
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import RmqJobsError
from rmqjobs.events import Event, EventKind
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire import deadletters as wire
from rmqjobs.wire import events as wire_events
from rmqjobs.wire.deadletters import DeadLetter
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.deadletters")

_JOURNAL_BATCH = 500
AT_ONCE = 100  # dead letters under way; if we are killed, these may be in both places
Act = Callable[[HeldMessage, DeadLetter], Message]
Progress = Callable[[int], None]


@dataclass(slots=True)
class Outcome:
    """What an action did.

    Args:
        done: Dead letters acted on.
        failed: Those that could not be, with the reason; they stay where they are.
        stopped: Why it did not go on, where it stopped by itself.
    """

    done: list[DeadLetter] = field(default_factory=list)
    failed: list[tuple[DeadLetter, str]] = field(default_factory=list)
    stopped: str = ""


@dataclass(slots=True)
class Stats:
    """Numbers of one dead-letter queue; those by reason, type and fingerprint cover only what one review can hold."""

    queue: str
    depth: int
    oldest: datetime | None = None
    by_reason: Counter[str] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)
    by_fingerprint: Counter[str] = field(default_factory=Counter)

    def count(self, letter: DeadLetter) -> None:
        """Counts one more."""
        if letter.failed_at is not None and (self.oldest is None or letter.failed_at < self.oldest):
            self.oldest = letter.failed_at
        self.by_reason[letter.reason] += 1
        self.by_type[letter.type] += 1
        self.by_fingerprint[letter.fingerprint] += 1


def _ignore(_count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """How an action is carried out.

    Args:
        limit: The most dead letters to act on.
        because: Why; the journal keeps it.
        rate: The most per second.
        progress: Called with how many more have been dealt with.
    """

    limit: int
    because: str = ""
    rate: float | None = None
    progress: Progress = _ignore


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
        """Work queues that have a dead-letter queue: the known ones, and all the broker has if its management API answers."""
        candidates = set(known)
        if (api := await management.find(self._settings, self._desk.connection)) is not None:
            start, end = f"{self._names.prefix}.", ".dead"
            names = await api.queues(self._settings.broker.vhost)
            candidates |= {name[len(start) : -len(end)] for name in names if name.startswith(start) and name.endswith(end)}
        return [queue for queue in sorted(candidates) if await self._desk.depth(self._names.dead_queue(queue)) is not None]

    async def unrouted(self) -> int:
        """Jobs that wait for a worker that knows their type."""
        return await self._desk.depth(self._names.unrouted) or 0

    async def letters(self, queue: str, selection: Selection, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """The dead letters of a work queue, oldest first, at most `limit`."""
        async for letter in self._found(self._names.dead_queue(queue), queue, selection, limit):
            yield letter

    async def dropped(self, selection: Selection, *, limit: int | None = None) -> AsyncIterator[DeadLetter]:
        """The dropped ones, which can be restored."""
        async for letter in self._found(self._names.dropped, "", selection, limit):
            yield letter

    async def stats(self, queue: str) -> Stats:
        """Counts the dead letters of a work queue."""
        stats = Stats(queue, await self._desk.depth(self._names.dead_queue(queue)) or 0)
        async for letter in self.letters(queue, Selection()):
            stats.count(letter)
        # Messages that an earlier review held are back in the queue only a moment after it has ended.
        stats.depth = max(stats.depth, stats.by_reason.total())
        return stats

    async def replay(self, queue: str, selection: Selection, order: Order) -> Outcome:
        """Publishes jobs again, from their first attempt."""

        def message(held: HeldMessage, letter: DeadLetter) -> Message:
            return wire.replay(self._names, held, letter, at=datetime.now(UTC))

        return await self._act(EventKind.REPLAYED, queue, selection, order, message)

    async def drop(self, queue: str, selection: Selection, order: Order) -> Outcome:
        """Takes dead letters out of review; for a while they can be restored."""

        def message(held: HeldMessage, letter: DeadLetter) -> Message:
            return wire.drop(self._names, held, letter, at=datetime.now(UTC), because=order.because)

        return await self._act(EventKind.DROPPED, queue, selection, order, message)

    async def restore(self, selection: Selection, order: Order) -> Outcome:
        """Brings dropped dead letters back to their queues."""

        def message(held: HeldMessage, letter: DeadLetter) -> Message:
            return wire.restore(self._names, held, letter)

        return await self._act(EventKind.RESTORED, "", selection, order, message)

    async def _found(self, source: str, queue: str, selection: Selection, limit: int | None) -> AsyncIterator[DeadLetter]:
        async with self._desk.look(source) as look:
            async for _, letter in _matching(look, queue, selection, limit):
                yield letter

    async def _act(self, kind: EventKind, queue: str, selection: Selection, order: Order, message: Act) -> Outcome:
        """Acts on what matches, several at a time: each is safe at its new place before it leaves the old one."""
        source = self._names.dead_queue(queue) if queue else self._names.dropped
        outcome, at_once, began = Outcome(), 1 if order.rate else AT_ONCE, datetime.now(UTC)
        try:
            async with self._desk.look(source) as look:
                batch: list[tuple[HeldMessage, DeadLetter]] = []
                async for pair in _matching(look, queue, selection, order.limit):
                    batch.append(pair)
                    if len(batch) == at_once:
                        await self._carry_out(look, batch, order, message, outcome)
                        batch = []
                await self._carry_out(look, batch, order, message, outcome)
        finally:
            await self._record(kind, outcome.done, order.because, began)
        return outcome

    async def _carry_out(
        self, look: Look, batch: list[tuple[HeldMessage, DeadLetter]], order: Order, message: Act, outcome: Outcome
    ) -> None:
        failures = await look.publish([(held, message(held, letter)) for held, letter in batch])
        for place, (_, letter) in enumerate(batch):
            if place in failures:
                outcome.failed.append((letter, str(failures[place])))
            else:
                outcome.done.append(letter)
        order.progress(len(batch))
        if order.rate and batch:
            await asyncio.sleep(1 / order.rate)

    async def _record(self, kind: EventKind, letters: Sequence[DeadLetter], because: str, began: datetime) -> None:
        """Writes to the journal; if that fails, the action is done all the same."""
        try:
            await self._journal(kind, letters, because, began)
        except RmqJobsError as error:
            log.warning("the journal does not have this action", extra={"action": kind.value, "because": str(error)})

    async def _journal(self, kind: EventKind, letters: Sequence[DeadLetter], because: str, began: datetime) -> None:
        """Records who did what to which job, and why; at the time it began, as a replayed job may have ended already."""
        for start in range(0, len(letters), _JOURNAL_BATCH):
            data: dict[str, JsonValue] = {"because": because} if because else {}
            events = [
                Event(kind, began, letter.id, letter.type, letter.queue, letter.attempts, data, self._by)
                for letter in letters[start : start + _JOURNAL_BATCH]
            ]
            await self._desk.publish([wire_events.batch(self._names, map(wire_events.encode, events), source=self._by)])


async def _matching(
    look: Look, queue: str, selection: Selection, limit: int | None
) -> AsyncIterator[tuple[HeldMessage, DeadLetter]]:
    """Up to `limit` matching dead letters, held."""
    now, found = datetime.now(UTC), 0
    async for held in look.messages():
        letter = wire.read(held, queue)
        if selection.matches(letter, now):
            yield held, letter
            found += 1
            if found == limit:
                return
