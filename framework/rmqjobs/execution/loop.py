"""The async pool: handlers run in the task of their job, on the event loop."""

from __future__ import annotations

import asyncio
import inspect
from types import CoroutineType
from typing import cast

from rmqjobs.execution.outcome import checked, told
from rmqjobs.execution.run import Run
from rmqjobs.execution.stacks import in_tasks


class LoopPool:
    """Runs `async def` handlers; a stopped one is cancelled."""

    async def run(self, run: Run) -> object:
        """The handler's result; raises its exception, or the error that it was stopped with."""
        task: asyncio.Task[object] = asyncio.current_task()  # type: ignore[assignment] # there is one
        run.begin(lambda _error: task.cancel())
        try:
            result = run.call()
            if type(result) is CoroutineType or inspect.isawaitable(result):  # a decorator may have awaited it already
                result = await result
            if run.stopped_by is not None:
                await _swallow_late_cancellation()
            return checked(result)
        except BaseException as error:
            ending = _ending(run, task, error)
            if ending is error:
                raise
            raise ending from None
        finally:
            run.end()

    async def stack_of(self, run: Run) -> list[str]:
        """Where the handler is."""
        return in_tasks(LoopPool.run.__code__, "run", run)

    async def close(self) -> None:
        """Does nothing: nothing is kept open."""


async def _swallow_late_cancellation() -> None:
    """For a run stopped just as its handler returned: the work is done, and the cancellation must not hit what follows."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()


def _ending(run: Run, task: asyncio.Task[object], error: BaseException) -> BaseException:
    """What ended the run: its stop, the cancellation of the whole task, or what the handler raised."""
    if isinstance(error, asyncio.CancelledError):
        if run.stopped_by is not None:
            task.uncancel()
            return run.stopped_by
        if task.cancelling():
            return error
    return told(error)
