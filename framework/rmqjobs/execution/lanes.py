"""A lane runs a limited number of items at once; the rest wait as plain values, in order."""

from __future__ import annotations

import asyncio
import contextvars
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")
_STRETCH = 0.005  # seconds that items which never wait may take before the event loop has a turn


class Lane(Generic[ItemT]):
    """Runs `start(item)` for each submitted item, never more than `slots` at once.

    Its runners are tasks that take one item after the other: a task for each item would cost more than many handlers do. Each
    item still has a context of its own, so that no job sees a variable of another one.

    Args:
        slots: How many run at once.
        start: Makes the work of an item; it handles its own errors.
    """

    def __init__(self, slots: int, start: Callable[[ItemT], Coroutine[Any, Any, None]]) -> None:
        self._slots, self._start = slots, start
        self._waiting: deque[ItemT] = deque()
        self._runners: set[asyncio.Task[None] | None] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._awake = False  # whether a runner is about to look at what waits
        self._running = 0

    @property
    def running(self) -> int:
        """How many items have started and not ended, or are about to start."""
        return self._running + min(len(self._waiting), self._slots - self._running)

    def submit(self, item: ItemT) -> None:
        """Starts the item, or lets it wait for a slot."""
        self._waiting.append(item)
        if not self._awake:
            self._wake()

    @property
    def waiting(self) -> Sequence[ItemT]:
        """Items that have not started."""
        return self._waiting

    def take(self, which: Callable[[ItemT], bool] = lambda _item: True) -> list[ItemT]:
        """Takes waiting items out of the lane, and returns them."""
        taken = [item for item in self._waiting if which(item)]
        self._waiting = deque(item for item in self._waiting if not which(item))
        return taken

    def _wake(self) -> None:
        """Wakes one runner, if a slot is free. The next is woken only when that one has to wait: most items never do."""
        self._awake = True
        while self._idle:
            woken = self._idle.pop()
            if not woken.done():  # it is done if its runner was cancelled
                woken.set_result(None)
                return
        if len(self._runners) < self._slots:
            self._runners.add(asyncio.create_task(self._run()))

    def _waits(self) -> None:
        self._awake = False
        if self._waiting:
            self._wake()

    async def _run(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            while True:
                await self._run_waiting(task)
                if task is None or task.cancelling():  # a cancellation meant for one item must not hit the next
                    return
                woken: asyncio.Future[None] = loop.create_future()
                self._idle.append(woken)
                await woken
        finally:
            self._runners.discard(task)
            self._waits()

    async def _run_waiting(self, task: asyncio.Task[None] | None) -> None:
        """Runs one item after the other, until none waits."""
        until = time.monotonic() + _STRETCH
        while self._waiting and not (task and task.cancelling()):
            work, context = self._start(self._waiting.popleft()), contextvars.copy_context()
            self._running += 1
            try:
                waits_for = context.run(work.send, None)
                self._waits()
                await _in_context(context, work, waits_for)
            except StopIteration:  # it ended without having to wait
                pass
            except Exception as error:  # noqa: BLE001 - reported to the event loop, as a task's would be
                told = {"message": "a lane's work raised", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
            finally:
                self._running -= 1
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + _STRETCH
        self._awake = False


@types.coroutine
def _in_context(context: contextvars.Context, work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Awaits the rest of the work in this context, as a task does at each step."""
    while True:
        step: Callable[..., Any] = work.send
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is for the work
            value, step = error, work.throw
        try:
            waits_for = context.run(step, value)
        except StopIteration:
            return
