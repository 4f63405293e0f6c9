"""A lane: at most so many at once, the rest waits as plain values, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")


class Lane(Generic[ItemT]):
    """Runs `start(item)` for each submitted item, never more than `slots` at once.

    Args:
        slots: How many at once.
        start: What runs; it handles its own errors.
    """

    def __init__(self, slots: int, start: Callable[[ItemT], Coroutine[Any, Any, None]]) -> None:
        self._slots, self._start = slots, start
        self._waiting: deque[ItemT] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """Items that have started and not ended."""
        return len(self._tasks)

    def submit(self, item: ItemT) -> None:
        """Starts the item, or lets it wait for a slot."""
        if len(self._tasks) < self._slots:
            self._begin(item)
        else:
            self._waiting.append(item)

    def take_waiting(self) -> list[ItemT]:
        """Everything that has not started; it is not in the lane any more."""
        items = list(self._waiting)
        self._waiting.clear()
        return items

    def forget(self, which: Callable[[ItemT], bool]) -> None:
        """Leaves out waiting items."""
        self._waiting = deque(item for item in self._waiting if not which(item))

    def _begin(self, item: ItemT) -> None:
        task = asyncio.create_task(self._start(item))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a lane's work raised", "exception": error, "task": task}
            )
        if self._waiting:
            self._begin(self._waiting.popleft())
