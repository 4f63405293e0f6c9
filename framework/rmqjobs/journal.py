"""The journal: what happened to jobs, in a stream. Writing is batched and never harms a job. Floor 6, below the services."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from rmqjobs.errors import BrokerBlocked, BrokerGone, InvalidJob, PublishRefused, PublishTimeout, RmqJobsError, Unroutable
from rmqjobs.events import Event, EventKind
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire import events as wire
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.journal")

BATCH = 500
SHORTEST = timedelta(milliseconds=10)  # between two writes
BATCH_BYTES = 2**20  # well below what any broker accepts as one message
AT_ONCE = 4  # batches on their way
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until the next try after a failure; doubled at each further one
MAX_PENDING = 100_000  # records kept while the broker accepts none; further ones are counted and left out


class Publishes(Protocol):
    """Whatever publishes one message, confirmed: a `PublishLink`, or a `SideLink`."""

    async def publish(self, message: Message, timeout: timedelta) -> None:
        """Raises an `RmqJobsError` when the message is not known to be in RabbitMQ."""


class Journal:
    """Writes records in batches, one message per interval.

    Args:
        link: Publishes the batches.
        names: Has the name of the exchange.
        source: Who writes: a worker's name, or an operator.
        interval: How often it writes.
        timeout: Deadline of one try to write.
    """

    def __init__(
        self, link: Publishes, names: Names, *, source: str, interval: timedelta, timeout: timedelta = timedelta(seconds=5)
    ) -> None:
        self._link, self._names, self._interval = link, names, max(interval, SHORTEST)
        self.source, self._timeout = source, timeout
        self._records: deque[bytes] = deque()  # encoded: lines are smaller, and no work for the garbage collector
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_full = asyncio.Event()
        self._progress: dict[str, Event] = {}
        self._left_out = 0
        self._pause = self._pause_until = 0.0  # the length of the latest pause, and when it ends

    def record(self, event: Event) -> None:
        """Takes one record; callable from any thread. Of a job's progress records, only the latest per interval is kept."""
        if event.kind is EventKind.PROGRESS:
            self._progress[event.job] = event
        elif len(self._records) < MAX_PENDING:
            self._records.append(wire.encode(event))
            if len(self._records) == BATCH and self._loop is not None:
                with contextlib.suppress(RuntimeError):  # a handler's thread may outlive the loop
                    self._loop.call_soon_threadsafe(self._is_full.set)
        else:
            self._left_out += 1

    async def run(self) -> None:
        """Writes until cancelled: every interval, and full batches at once."""
        self._loop = asyncio.get_running_loop()
        due = self._loop.time() + self._interval.total_seconds()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):  # `wait_for` of Python 3.11 loses a cancellation that comes with its result
                    await self._is_full.wait()
            self._is_full.clear()
            is_due = self._loop.time() >= due
            if is_due:
                due = self._loop.time() + self._interval.total_seconds()
            try:
                await (self.flush() if is_due else self._write(least=BATCH))
            except Exception:
                log.exception("the journal failed unexpectedly; it continues")

    async def flush(self) -> None:
        """Writes all pending records; those that the broker does not accept now are kept for the next time."""
        for job_id in list(self._progress):
            self._records.append(wire.encode(self._progress.pop(job_id)))
        await self._write(least=1)

    async def close(self) -> None:
        """Writes the rest; records that the broker does not accept now are lost."""
        self._pause_until = 0.0
        await self.flush()

    async def _write(self, *, least: int) -> None:
        """Writes batches, several at once, while `least` records or more wait; not during the pause after a failure."""
        while len(self._records) >= least and time.monotonic() >= self._pause_until:
            batches = [self._batch() for _ in range(min(AT_ONCE, -(-len(self._records) // BATCH)))]
            kept = await asyncio.gather(*map(self._publish, batches))
            for batch in reversed([batch for batch in kept if batch]):
                self._records.extendleft(reversed(batch))
            if any(kept):
                return

    def _batch(self) -> list[bytes]:
        batch = [self._records.popleft() for _ in range(min(BATCH, len(self._records)))]
        while len(batch) > 1 and sum(map(len, batch)) > BATCH_BYTES:
            middle = len(batch) // 2
            self._records.extendleft(reversed(batch[middle:]))
            del batch[middle:]
        if self._left_out:
            batch.append(wire.encode(self._lost()))
        return batch

    async def _publish(self, batch: list[bytes]) -> list[bytes]:
        """Publishes a batch; returns the records that have to be tried again."""
        try:
            await self._link.publish(wire.batch(self._names, batch, source=self.source), self._timeout)
        except InvalidJob as error:
            if len(batch) > 1:  # this broker accepts only smaller messages
                middle = len(batch) // 2
                return await self._publish(batch[:middle]) + await self._publish(batch[middle:])
            self._leave_out(batch, error)
        except (BrokerGone, BrokerBlocked, PublishTimeout, PublishRefused, Unroutable) as error:
            self._complain("journal not written yet", batch, error)
            return batch
        except RmqJobsError as error:
            self._leave_out(batch, error)
        else:
            self._pause = 0.0
        return []

    def _leave_out(self, batch: list[bytes], error: RmqJobsError) -> None:
        self._complain("journal records left out", batch, error)
        self._left_out += len(batch)

    def _complain(self, what: str, batch: list[bytes], error: RmqJobsError) -> None:
        """Logs a problem, at most once per pause: a stream that is gone is gone for every batch."""
        now = time.monotonic()
        if now >= self._pause_until:
            log.warning(what, extra={"records": len(batch) + len(self._records), "because": str(error)})
            self._pause = min(max(self._pause * 2, PAUSE), LONGEST_PAUSE)
            self._pause_until = now + self._pause

    def _lost(self) -> Event:
        count, self._left_out = self._left_out, 0
        return Event(EventKind.LOST, datetime.now(UTC), "", "", data={"records": count})


async def follow(
    settings: Settings, *, start: str = "next", stop_at_end: bool = False, about: str = ""
) -> AsyncGenerator[Event, None]:
    """The journal's records, oldest first.

    Args:
        settings: The broker, and the prefix.
        start: `first`, `next` (only new records), an ISO 8601 instant or an offset number.
        about: Only records of jobs whose id begins like this.
        stop_at_end: End a second after the record that was the last one at the call, instead of waiting for more.
    """
    from rmqjobs.amqp.streams import read_stream  # noqa: PLC0415 - aio-pika is for readers; a worker only writes

    names = Names(settings.prefix)
    async with contextlib.aclosing(read_stream(settings, names.journal, start=start, stop_at_end=stop_at_end)) as messages:
        async for message in messages:
            for event in wire.decode(message.body, message.source, about=about):
                yield event
