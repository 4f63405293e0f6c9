"""The process pool: children run one job at a time and already hold the next ones, so that they never wait for work.

A child is always killed when the run in it is stopped. Its death affects only the job that ran in it: other jobs that it held
run in another child.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pydantic import JsonValue

from rmqjobs.errors import ChildDied, Interrupted
from rmqjobs.execution import frames
from rmqjobs.execution.children import Child
from rmqjobs.execution.run import Run
from rmqjobs.job import Handler, Job
from rmqjobs.wire.values import Json

log = logging.getLogger("rmqjobs.execution")

MOST = 16
UP_WITHIN = 60.0  # seconds that a child may take to start and import what it needs
HELD = 0.005  # seconds of work that a child holds, beyond the job that runs and the next


@dataclass(frozen=True, slots=True)
class Recycle:
    """When a child is replaced, after a job.

    Args:
        jobs: When it has run this many.
        peak_bytes: When it has used this much memory at any time.
    """

    jobs: int = 10_000
    peak_bytes: int = 2**30


@dataclass(slots=True, eq=False)
class _Order:
    """One run on its way; `ended` gets its result, or what ended it."""

    run: Run
    ended: asyncio.Future[object]
    number: int = 0  # in the child that has it

    def end(self, outcome: object) -> None:
        if self.ended.done():
            return
        if isinstance(outcome, BaseException):
            self.ended.set_exception(outcome)
        else:
            self.ended.set_result(outcome)


@dataclass(slots=True, eq=False)
class _Seat:
    """A child and the orders it has; the first one runs."""

    child: Child
    orders: deque[_Order] = field(default_factory=deque)
    given: int = 0
    runs: int = 0
    starting: asyncio.TimerHandle | None = None  # what ends it if it does not come up in time
    is_worn: bool = False  # it is replaced as soon as it is idle
    signs: asyncio.Task[None] | None = None


class ProcessPool:
    """Keeps children warm, and gives each the next job while it runs one.

    Args:
        size: How many children at most.
        recycle: When a child is replaced, so that leaks stay small.
        lease: A child that runs a singleton ends itself when it hears nothing for this long. This process may be frozen: then
            the broker gives the job to another worker, and nobody is left to kill the child.
        modules: What each child imports before its first job.
        most: The most jobs that a child holds, including the one that runs.
    """

    def __init__(self, size: int, recycle: Recycle, lease: timedelta, *, modules: Iterable[str] = (), most: int = MOST) -> None:
        self._size, self._recycle, self._lease, self._most = size, recycle, lease.total_seconds(), most
        self._modules = tuple(modules)
        self._pace = math.inf  # seconds that runs took lately
        self._seats: list[_Seat] = []
        self._waiting: deque[_Order] = deque()
        self._starting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, run: Run) -> object:
        """The handler's result as `Json` or None, its exception as a `RemoteError`, or what it was stopped by.

        Raises:
            ChildDied: The child died by itself.
        """
        order = _Order(run, asyncio.get_running_loop().create_future())
        run.wait(lambda _error: self._withdraw(order))
        self._waiting.append(order)
        self._place()
        try:
            return await order.ended
        except asyncio.CancelledError:
            self._withdraw(order)  # nobody will read its answer
            raise
        finally:
            run.end()

    def shed(self, error: Exception, *, keep: int = 0) -> None:
        """Stops runs that no child has begun, with this error, except `keep` of them at each child."""
        for seat in self._seats:
            for order in list(seat.orders)[keep + 1 :]:
                order.run.stop(error)
        for order in list(self._waiting):
            order.run.stop(error)

    async def stack_of(self, run: Run) -> list[str]:
        """Where the handler is, in the main thread of its child."""
        for seat in self._seats:
            if seat.starting is None and seat.orders and seat.orders[0].run is run:
                return await seat.child.stack()
        return []

    async def close(self) -> None:
        """Ends all children."""
        self._size = 0
        while self._waiting:
            order = self._waiting.popleft()
            order.end(order.run.stopped_by or Interrupted("the worker is stopping"))
        for seat in self._seats:
            seat.child.kill()
        while self._tasks or self._seats:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

    # -- which child gets which order

    def _place(self) -> None:
        """Gives waiting orders to children that have room, idle ones first; starts children where there are too few."""
        while self._waiting:
            seat = min((each for each in self._seats if self._has_room(each)), key=lambda each: len(each.orders), default=None)
            if (seat is None or seat.orders) and len(self._seats) + self._starting < self._size:
                self._starting += 1
                self._beside(self._start())
            if seat is None:
                return
            self._give(seat, self._waiting.popleft())

    def _has_room(self, seat: _Seat) -> bool:
        return len(seat.orders) < self._depth and not seat.is_worn

    @property
    def _depth(self) -> int:
        """How many jobs a child holds: the one that runs and the next, or more short ones, so that several go in one write."""
        return min(max(int(HELD / self._pace), 2), self._most)

    def _give(self, seat: _Seat, order: _Order) -> None:
        seat.given += 1
        order.number = seat.given
        seat.orders.append(order)
        if len(seat.orders) == 1 and seat.starting is None:
            self._begin(seat)
        lease = self._lease if order.run.handler.singleton else None
        seat.child.send(order.number, frames.pack(_head(order, lease), order.run.body))

    def _begin(self, seat: _Seat) -> None:
        """Starts the time of the first order."""
        order = seat.orders[0]
        run = order.run
        run.begin(lambda _error: self._withdraw(order))
        if run.handler.singleton:
            seat.signs = asyncio.create_task(_give_signs_of_life(seat.child, self._lease))

    def _over(self, seat: _Seat) -> None:
        """The run in the child is over: it is the next one's turn."""
        if seat.signs is not None:
            seat.signs.cancel()
            seat.signs = None
        if seat.orders and seat.starting is None:
            self._begin(seat)

    def _take_back(self, seat: _Seat) -> _Order | None:
        """An order that the child has not begun; it may be given to another one."""
        number = seat.child.take_back()
        order = next((each for each in seat.orders if each.number == number), None)
        if order is not None:
            was_first = order is seat.orders[0]
            seat.orders.remove(order)
            if was_first:
                self._over(seat)
        return order

    def _employ(self, seat: _Seat) -> None:
        """Lets an idle child take over an order that another one only holds."""
        self._place()
        busy = next((each for each in self._seats if len(each.orders) > 1), None)
        if busy is not None and not seat.orders and self._has_room(seat):
            order = self._take_back(busy)
            if order is not None:
                self._give(seat, order)

    def _withdraw(self, order: _Order) -> None:
        """Ends an order, wherever it is, with the error that its run was stopped with."""
        if order in self._waiting:
            self._waiting.remove(order)
            order.end(order.run.stopped_by)
            return
        seat = next((each for each in self._seats if order in each.orders), None)
        while seat is not None:
            taken = self._take_back(seat)
            if taken is None:  # the child has begun it
                seat.child.kill()
                return
            if taken is order:
                order.end(order.run.stopped_by)
                self._employ(seat)
                return
            self._wait_again(taken)

    def _wait_again(self, order: _Order) -> None:
        if order.run.stopped_by is None:
            self._waiting.appendleft(order)
        else:
            order.end(order.run.stopped_by)

    # -- what comes from the children

    async def _start(self) -> None:
        """Starts a child. If the system refuses, the order that has waited longest fails with that error."""
        seat = _Seat(Child(self._modules, lambda head, body: self._on_frame(seat, head, body), lambda: self._on_end(seat)))
        seat.starting = asyncio.get_running_loop().call_later(UP_WITHIN, seat.child.kill)
        try:
            await seat.child.start()
        except OSError as error:
            seat.starting.cancel()
            if self._waiting:
                self._waiting.popleft().end(error)
            return
        finally:
            self._starting -= 1
        log.debug("child started", extra={"child": seat.child.pid})
        self._seats.append(seat)
        if self._size:
            self._employ(seat)
        else:  # closed meanwhile
            seat.child.kill()

    def _on_frame(self, seat: _Seat, head: frames.Head, body: bytes) -> None:
        if "up" in head:
            self._on_up(seat)
            return
        order = seat.orders[0] if seat.orders else None
        if order is None or order.number != head["number"]:
            return  # of a job that has ended: a thread that it left behind still reports
        if "report" in head:
            _report(order.run.job, head["report"], head["data"])
            return
        seat.orders.popleft()
        seat.runs += 1
        order.run.end()
        self._pace = order.run.seconds if math.isinf(self._pace) else self._pace + (order.run.seconds - self._pace) / 8
        if "signal" in head:
            order.end(frames.error_of(head))
        else:
            order.end(Json(body) if body else None)
        self._over(seat)
        seat.is_worn = seat.runs >= self._recycle.jobs or head["peak_bytes"] >= self._recycle.peak_bytes
        if seat.is_worn:
            self._replace(seat, head["peak_bytes"])
        self._employ(seat)

    def _on_up(self, seat: _Seat) -> None:
        """The child runs jobs from here on; until now no job's time was running."""
        if seat.starting is not None:
            seat.starting.cancel()
            seat.starting = None
        if seat.orders:
            self._begin(seat)

    def _replace(self, seat: _Seat, peak_bytes: int) -> None:
        while (order := self._take_back(seat)) is not None:
            self._wait_again(order)
        if not seat.orders:
            log.debug("child replaced", extra={"child": seat.child.pid, "jobs": seat.runs, "peak_bytes": peak_bytes})
            seat.child.kill()

    def _on_end(self, seat: _Seat) -> None:
        """The child is dead: orders that it had not begun run in another one."""
        if seat in self._seats:
            self._seats.remove(seat)
        if seat.starting is not None:
            seat.starting.cancel()
        spared: list[_Order] = []
        while (order := self._take_back(seat)) is not None:
            spared.append(order)
        if not seat.runs and not seat.orders and spared:
            seat.orders.append(spared.pop(0))  # it never began anything; unless one order fails, that may go on for ever
        for order in reversed(spared):
            self._wait_again(order)
        if seat.signs is not None:
            seat.signs.cancel()
        self._beside(self._bury(seat))
        self._place()

    async def _bury(self, seat: _Seat) -> None:
        how = await seat.child.ended()
        for order in seat.orders:
            order.end(order.run.stopped_by or ChildDied(f"the process of {order.run.handler.name} {how}"))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _report(job: Job, kind: str, data: dict[str, JsonValue]) -> None:
    if kind == "checkpoint":
        job.state = data["state"]
    job.reporter(job, kind, data)


async def _give_signs_of_life(child: Child, lease: float) -> None:
    while True:
        await asyncio.sleep(lease / 4)
        child.sign()


def is_importable(handler: Handler) -> bool:
    """Whether a child process can find the handler's function and payload by name."""
    return "<locals>" not in handler.function.__qualname__ + handler.payload_type.__qualname__


def _head(order: _Order, lease: float | None) -> dict[str, Any]:
    run = order.run
    function, payload = _references(run.handler.function, run.handler.payload_type)
    head = {"number": order.number, "function": function, "payload": payload, "lease": lease}
    if run.handler.wants_job:
        head["job"] = frames.job_fields(run.job)
    return head


@lru_cache(maxsize=1_000)
def _references(function: Callable[..., Any], payload: type) -> tuple[str, str]:
    return f"{function.__module__}:{function.__qualname__}", f"{payload.__module__}:{payload.__qualname__}"
