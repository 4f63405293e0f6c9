"""When each schedule has to be looked at next, with the nearest of all these moments at hand."""

from __future__ import annotations

import heapq
from datetime import datetime


class Agenda:
    """At most one moment for each name; a later note replaces an earlier one."""

    def __init__(self) -> None:
        self._moments: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []  # replaced notes stay in it until their moment

    def note(self, name: str, at: datetime | None) -> None:
        """Notes the moment; None means that there is none."""
        if at is None:
            self._moments.pop(name, None)
        elif self._moments.get(name) != at:
            self._moments[name] = at
            heapq.heappush(self._heap, (at, name))

    def take(self, now: datetime) -> list[str]:
        """The names whose moment has come, each once, in order; their notes are gone."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._moments.get(name) == at:
                del self._moments[name]
                taken.append(name)
        return taken

    @property
    def nearest(self) -> datetime | None:
        """The first moment of all."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        """Forgets everything."""
        self._moments.clear()
        self._heap.clear()
