"""Writes to the journal how a process is: every few seconds, and at each change. Floor 6, on the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from rmqjobs.events import Event, EventKind
from rmqjobs.journal import Journal
from rmqjobs.machine import memory_bytes


class Beats:
    """The beats of one process.

    Args:
        journal: Takes them.
        kind: `WORKER` or `SCHEDULER`.
        details: Gives its state, and what else is to be known of it.
        now: The time of day, aware.
    """

    def __init__(
        self, journal: Journal, kind: EventKind, details: Callable[[], Mapping[str, Any]], now: Callable[[], datetime]
    ) -> None:
        self._journal, self._kind, self._details, self._now = journal, kind, details, now
        self._started_at = now()

    def report(self) -> dict[str, Any]:
        """How it is now."""
        common = {"version": version("rmqjobs"), "started_at": self._started_at.isoformat(), "memory_bytes": memory_bytes()}
        return common | dict(self._details())

    def write(self) -> None:
        """Writes one."""
        self._journal.record(Event(self._kind, self._now(), "", "", data=self.report()))

    async def run(self, interval: float) -> None:
        """Writes one every so many seconds, until cancelled."""
        while True:
            self.write()
            await asyncio.sleep(interval)
