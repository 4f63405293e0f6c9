"""The async pool: handlers run in the task of their job, on the event loop."""

from __future__ import annotations

import asyncio
from typing import cast

from rmqjobs.execution.run import Run


class LoopPool:
    """Runs `async def` handlers; a stopped one is cancelled."""

    async def run(self, run: Run) -> object:
        """The handler's result, or its exception, or what it was stopped by."""
        task: asyncio.Task[object] = asyncio.current_task()  # type: ignore[assignment] # there is one
        run.begin(lambda _error: task.cancel())
        try:
            result = await run.call()  # type: ignore[misc]
            if run.stopped_by is not None:
                await _swallow_late_cancellation()
        except asyncio.CancelledError:
            if run.stopped_by is None:
                raise
            task.uncancel()
            raise run.stopped_by from None
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(f"the handler raised {error!r}") from error  # it may end its job, not the worker
        else:
            return result
        finally:
            run.end()

    async def close(self) -> None:
        """Nothing is kept open."""


async def _swallow_late_cancellation() -> None:
    """Stopped in the moment the handler returned: the work is done, the pending cancellation must not hit what follows."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        task.uncancel()
