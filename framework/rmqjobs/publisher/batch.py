"""Many jobs at once, pipelined."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from rmqjobs.amqp.publishing import WINDOW, PublishLink
from rmqjobs.errors import InvalidJob, RmqJobsError
from rmqjobs.publisher.writing import id_of
from rmqjobs.wire.jobs import Message


async def publish_all(link: PublishLink, messages: Iterable[Message], timeout: timedelta) -> list[str]:
    """Sends messages as they are made and returns their ids once RabbitMQ has all; see `AsyncPublisher.publish_many`."""
    batch = _Batch(asyncio.get_running_loop())
    try:
        for message in messages:
            await batch.room()
            link.send(message, timeout, batch.expect(id_of(message)))
    except InvalidJob as error:
        await batch.refuse(error)
        raise
    return await batch.all()


class _Batch:
    """Counts the confirms of one `publish_many` and keeps the number of open ones bounded."""

    ROOM = 2 * WINDOW

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids: list[str] = []
        self._failed: dict[str, RmqJobsError] = {}
        self._open = 0
        self._wanted = 0
        self._wake: asyncio.Future[None] | None = None

    def expect(self, job_id: str) -> Any:
        self._ids.append(job_id)
        self._open += 1

        def settled(error: RmqJobsError | None) -> None:
            self._open -= 1
            if error is not None:
                self._failed[job_id] = error
            if self._wake is not None and not self._wake.done() and self._open <= self._wanted:
                self._wake.set_result(None)

        return settled

    async def room(self) -> None:
        """Waits while too many are open, and gives the loop a turn now and then."""
        if self._open >= self.ROOM:
            await self._until(self.ROOM // 2)
        elif len(self._ids) % 100 == 99:  # noqa: PLR2004 - often enough to read confirms while sending
            await asyncio.sleep(0)
        if self._failed:
            await self.all()

    async def all(self) -> list[str]:
        """The ids, once all are confirmed; raises the first failure."""
        await self._until(0)
        if self._failed:
            error = next(iter(self._failed.values()))
            await self.refuse(error)
            raise error
        return self._ids

    async def refuse(self, error: RmqJobsError) -> None:
        """Stores in the error which jobs are known to be queued all the same."""
        await self._until(0)
        error.published = [job_id for job_id in self._ids if job_id not in self._failed]  # type: ignore[attr-defined]

    async def _until(self, wanted: int) -> None:
        if self._open <= wanted:
            return
        self._wanted = wanted
        self._wake = self._loop.create_future()
        await self._wake
        self._wake = None
