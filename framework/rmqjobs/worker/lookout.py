"""Watches from the worker whether a scheduler runs: when all schedulers are gone, none of them can say so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from rmqjobs.amqp.connection import Connection
from rmqjobs.amqp.counting import count
from rmqjobs.errors import BrokerError

log = logging.getLogger("rmqjobs.worker")

LOOK_EVERY = 10.0


class Lookout:
    """Warns when schedules exist and no scheduler is connected.

    Args:
        queue: The scheduler's queue.
        limit: How long that may last.
        warn: Called once each time it lasts longer, with its seconds so far.
    """

    def __init__(self, queue: str, limit: timedelta, warn: Callable[[float], None]) -> None:
        self._queue, self._limit, self._warn = queue, limit.total_seconds(), warn
        self._since: float | None = None
        self._warned = False

    @property
    def missing_seconds(self) -> float:
        """How long there has been no scheduler; 0 while there is one, or nothing is scheduled."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    async def run(self, connection: Callable[[], Connection | None]) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._limit or LOOK_EVERY))
            current = connection()
            if current is not None and not current.closed.done():
                try:
                    await self.look(current)
                except BrokerError as error:
                    log.debug("cannot look for schedulers", extra={"because": str(error)})

    async def look(self, connection: Connection) -> None:
        """Looks once; raises `BrokerError` when the connection is lost meanwhile."""
        missing = await self._is_missing(connection)
        if not missing:
            if self._warned:
                log.info("a scheduler is connected again")
            self._since, self._warned = None, False
            return
        self._since = self._since or time.monotonic()
        if self.missing_seconds >= self._limit and not self._warned:
            self._warned = True
            self._warn(self.missing_seconds)

    async def _is_missing(self, connection: Connection) -> bool:
        channel = await connection.channel()
        try:
            counts = await count(channel, self._queue)
        except BrokerError:
            if connection.closed.done():
                raise
            return False  # no such queue: nothing was ever scheduled here
        await channel.close()
        return bool(counts.messages) and not counts.consumers
