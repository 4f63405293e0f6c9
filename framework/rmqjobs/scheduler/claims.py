"""Ends the claims of old ticks: workers make one for each tick that they start, so that a second publication does not run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from rmqjobs.amqp.holding import Holding
from rmqjobs.errors import BrokerError
from rmqjobs.topology import Names
from rmqjobs.wire.scheduling import Entry, Token, planned_text, tick_id

log = logging.getLogger("rmqjobs.scheduler")

# A second publication may wait as long as the jobs before it: a claim is kept for some ticks and for some time.
KEPT_TICKS = 10
AT_LEAST, AT_MOST = timedelta(minutes=10), timedelta(days=7)
MOST = 200  # at once; RabbitMQ 4.3 deletes some 80 exchanges a second

_Claim = tuple[str, str]  # name of the schedule and planned time


class Sweeper:
    """Notes which ticks may have been claimed, and ends the claims of those that are long past, in the background.

    Args:
        holding: Its connection is used.
        names: Names of claims.
    """

    def __init__(self, holding: Holding, names: Names) -> None:
        self._holding, self._names = holding, names
        self._sweeping: asyncio.Task[None] | None = None

    def note(self, entry: Entry, planned: datetime) -> None:
        """Notes a tick that was published: from now on a worker may have claimed it."""
        text = planned_text(planned)
        if text not in entry.claims[-KEPT_TICKS:]:
            entry.claims.append(text)

    def sweep(self, token: Token, now: datetime) -> None:
        """Begins to end old claims, unless that is going on already; the token has those that are left."""
        if self._sweeping is None or self._sweeping.done():
            old = [(name, planned) for name, entry in token.entries.items() for planned in _old(entry, now)]
            if old:
                self._sweeping = asyncio.create_task(self._end(old[:MOST], token))

    def forget(self, name: str, entry: Entry) -> None:
        """Ends the claims of a schedule that was removed, as many as go at once."""
        token = Token(entries={name: entry})
        self._sweeping = asyncio.create_task(self._end([(name, planned) for planned in entry.claims[-MOST:]], token))

    async def close(self) -> None:
        """Stops sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def _end(self, claims: Iterable[_Claim], token: Token) -> None:
        ids = {claim: tick_id(claim[0], datetime.fromisoformat(claim[1])) for claim in claims}
        try:
            await self._holding.release(self._names, ids.values())
        except BrokerError as error:
            log.warning("old claims stay for now", extra={"claims": len(ids), "because": str(error)})
            return
        for name, planned in ids:
            entry = token.entries.get(name)
            if entry is not None and planned in entry.claims:
                entry.claims.remove(planned)


def _old(entry: Entry, now: datetime) -> Iterator[str]:
    """Claims of ticks that are long past; they are in order."""
    spare = len(entry.claims) - KEPT_TICKS
    for place, planned in enumerate(entry.claims):
        age = now - datetime.fromisoformat(planned).astimezone(UTC)
        if age < AT_LEAST or (place >= spare and age < AT_MOST):
            return
        yield planned
