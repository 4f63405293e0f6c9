"""One published job, for programs: `publisher.job(id)`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue

from rmqjobs.errors import NoResult
from rmqjobs.lifecycle import State
from rmqjobs.settings import Settings
from rmqjobs.tracking.reading import Life, changes, find, until_ended


class AsyncTrackedJob:
    """A job whose id is known, read from the journal at each call: the program needs to read `rmqjobs.journal` for that.

    Args:
        settings: The broker, and the prefix.
        job_id: The whole id.
    """

    def __init__(self, settings: Settings, job_id: str) -> None:
        self._settings, self.id = settings, job_id

    async def life(self) -> Life | None:
        """Everything that is known of it; None while nothing is.

        Raises:
            BrokerError: The journal cannot be read.
        """
        return next((life for life in await find(self._settings, self.id) if life.id == self.id), None)

    async def state(self) -> State | None:
        """Where it is; None while nothing is known of it: it waits for its first worker, or was never published."""
        life = await self.life()
        return life.state(datetime.now(UTC)) if life is not None else None

    def changes(self) -> AsyncGenerator[Life, None]:
        """Its life as it is known now, and again whenever more is known, for ever: for a page that shows progress.

        Raises:
            BrokerError: The journal cannot be read.
        """
        return changes(self._settings, self.id)

    async def result(self, timeout: timedelta) -> JsonValue:
        """Waits until it is done, and returns what its handler returned.

        Args:
            timeout: How long to wait.

        Raises:
            NoResult: It was given up, dropped or skipped; or its result is too large for the journal.
            TimeoutError: It has not ended in time.
            BrokerError: The journal cannot be read.
        """
        async with asyncio.timeout(timeout.total_seconds()):
            life = await until_ended(self._settings, self.id)
        state, data = life.state(datetime.now(UTC)), life.records[-1].data
        if state is not State.DONE:
            raise NoResult(f"job {life.id} is {state}" + (f": {life.because}" if life.because else ""))
        if data.get("result_left_out"):
            raise NoResult(f"job {life.id} is done, but its result is too large for the journal. Ask for it with reply_to")
        return data.get("result")


class TrackedJob:
    """The same for programs without an event loop.

    Args:
        job: The job.
        run: Calls an asynchronous function elsewhere, and returns what it returned.
    """

    def __init__(self, job: AsyncTrackedJob, run: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._job, self._run, self.id = job, run, job.id

    def life(self) -> Life | None:
        """As `AsyncTrackedJob.life`."""
        found: Life | None = self._run(self._job.life)
        return found

    def state(self) -> State | None:
        """As `AsyncTrackedJob.state`."""
        found: State | None = self._run(self._job.state)
        return found

    def result(self, timeout: timedelta) -> JsonValue:
        """As `AsyncTrackedJob.result`."""
        found: JsonValue = self._run(lambda: self._job.result(timeout))
        return found
