"""The thread pool: long-lived threads fed by one queue; results come back in bursts, one wake-up each."""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from rmqjobs.execution.outcome import checked, told
from rmqjobs.execution.run import Run
from rmqjobs.execution.stacks import in_threads

_Future = asyncio.Future[object]


class StopRun(BaseException):
    """Raised inside a thread whose run is stopped; a handler's `except Exception` does not catch it."""


@dataclass(slots=True, eq=False)
class _Task:
    run: Run
    future: _Future
    # The job's own, with what hooks have set: no job sees a variable that another one has set.
    context: Context = field(default_factory=copy_context)
    thread: int | None = None


class ThreadPool:
    """Runs plain functions.

    A stopped run sees `job.cancelled`, and an exception is raised in it between two bytecodes; inside a long C call it
    goes on until that call returns.
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
        """The handler's result; raises its exception, or the error that it was stopped with."""
        task = _Task(run, self._loop.create_future())
        run.begin(lambda _error: self._interrupt(task))
        self._tasks.put(task)
        try:
            return await task.future
        except StopRun:
            raise run.stopped_by or RuntimeError("the handler raised StopRun, which is for stopping it") from None
        finally:
            run.end()

    async def stack_of(self, run: Run) -> list[str]:
        """Where the handler is."""
        return in_threads(Run.call.__code__, "self", run)

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
                result = task.context.run(task.run.call)
                returned = True
            finally:
                with self._lock:  # from here on nobody raises into this thread
                    task.thread = None
            return checked(result), None
        except StopRun as error:
            # When it was stopped just as it returned, the work is done.
            return (result, None) if returned else (None, error)
        except BaseException as error:  # noqa: BLE001 - every end of a handler is a value here
            return None, told(error)

    def _deliver(self) -> None:
        self._waking = False
        while self._ended:
            future, result, error = self._ended.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _interrupt(self, task: _Task) -> None:
        with self._lock:
            if task.thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(task.thread), ctypes.py_object(StopRun))
