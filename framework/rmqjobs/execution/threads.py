"""The thread pool: long-lived threads fed by one queue; results come back in bursts, one wake-up each."""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections import deque
from dataclasses import dataclass

from rmqjobs.execution.run import Run

_Future = asyncio.Future[object]


class StopRun(BaseException):
    """Raised inside a thread whose run is stopped; a handler's `except Exception` does not catch it."""


@dataclass(slots=True, eq=False)
class _Task:
    run: Run
    future: _Future
    thread: int | None = None


class ThreadPool:
    """Runs plain functions.

    A stopped run sees `job.cancelled` and gets an exception raised between two of its bytecodes; inside a long C call it
    goes on until that returns.
    """

    def __init__(self, slots: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._ended: deque[tuple[_Future, object, BaseException | None]] = deque()
        self._waking = False
        self._lock = threading.Lock()
        # Daemons: a thread stuck in C code must not keep a stopped worker alive.
        self._threads = [threading.Thread(target=self._work, name=f"rmqjobs-{number}", daemon=True) for number in range(slots)]
        for thread in self._threads:
            thread.start()

    async def run(self, run: Run) -> object:
        """The handler's result, or its exception, or what it was stopped by."""
        task = _Task(run, self._loop.create_future())
        run.begin(lambda _error: self._interrupt(task))
        self._tasks.put(task)
        try:
            return await task.future
        except StopRun:
            raise run.stopped_by or RuntimeError("a handler raised StopRun") from None
        finally:
            run.end()

    async def close(self) -> None:
        """Lets idle threads end."""
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            result, error = self._call(task)
            self._ended.append((task.future, result, error))
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return

    def _call(self, task: _Task) -> tuple[object, BaseException | None]:
        result: object = None
        returned = False
        try:
            try:
                task.thread = threading.get_ident()
                result = task.run.call()
                returned = True
            finally:
                with self._lock:  # from here on nobody raises into this thread
                    task.thread = None
        except BaseException as error:  # noqa: BLE001 - every end of a handler is a value here
            # Stopped in the moment it returned: the work is done.
            return (result, None) if returned else (None, error)
        return result, None

    def _deliver(self) -> None:
        self._waking = False
        while self._ended:
            future, result, error = self._ended.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                # A StopIteration cannot be set on a future, and a SystemExit would end the loop.
                plain = error if isinstance(error, (Exception, StopRun)) else RuntimeError(f"handler raised {error!r}")
                future.set_exception(RuntimeError(repr(plain)) if isinstance(plain, StopIteration) else plain)

    def _interrupt(self, task: _Task) -> None:
        with self._lock:
            if task.thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(task.thread), ctypes.py_object(StopRun))
