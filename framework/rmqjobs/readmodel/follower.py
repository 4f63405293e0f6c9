"""Keeps a read model up to date: follows the journal, whatever happens to the broker, the stream, the file or the disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from rmqjobs.amqp.streams import StreamMessage, last_offset, read_stream
from rmqjobs.errors import RmqJobsError
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.queries import Queries
from rmqjobs.readmodel.writing import MAX_BYTES, Writer, digest
from rmqjobs.settings import Settings
from rmqjobs.topology import Names

log = logging.getLogger("rmqjobs.readmodel")

BATCH = 100  # messages written together, each with up to 500 records
GATHER = 0.05  # seconds that a batch is waited for
KEEP_EVERY = 1.0
AGAIN_AFTER, LONGEST_AGAIN = 1.0, 30.0
KNOWN_WITHIN = 3.0  # seconds in which the last known message must come again

ResultT = TypeVar("ResultT")
Progress = Callable[[int, int], None]
Heard = Callable[[list[StreamMessage]], None]


def ignore(*_: object) -> None:
    """Does nothing."""


class Follower:
    """Follows the journal into one file, with one thread that writes.

    Args:
        settings: The broker, and the prefix.
        path: The file, or `schema.MEMORY`.
        max_bytes: How large it may become.
        start: Where to begin in the stream when the model is empty: `first`, or an ISO 8601 time.
        progress: Called with the last offset that is written, and the one that was the last when reading began.
        heard: Called with messages that have just been written.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path | str,
        *,
        max_bytes: int = MAX_BYTES,
        start: str = "first",
        progress: Progress = ignore,
        heard: Heard = ignore,
    ) -> None:
        self._settings, self._path, self._max_bytes, self._start = settings, path, max_bytes, start
        self._progress, self._heard = progress, heard
        self._stream = Names(settings.prefix).journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rmqjobs-readmodel")
        self._writer: Writer | None = None
        self._connection: sqlite3.Connection | None = None
        self.records = 0  # taken since the start
        self._end: int | None = None  # the offset that has to be reached to have caught up
        self.problem = ""  # why it does not follow now
        self.caught_up = asyncio.Event()

    @property
    def connection(self) -> sqlite3.Connection:
        """The writer's connection."""
        if self._connection is None:
            raise RuntimeError("the model is not open")
        return self._connection

    async def open(self) -> None:
        """Opens the file; one that cannot be used is set aside.

        Raises:
            OSError: It cannot be written.
        """
        self._connection = await self._write(lambda: schema.open_file(self._path))
        self._writer = Writer(self._connection, max_bytes=self._max_bytes)

    async def close(self) -> None:
        """Closes it."""
        if self._connection is not None:
            await self._write(self._connection.close)
        self._thread.shutdown()

    async def run(self) -> None:
        """Follows until cancelled. Whatever stops it is logged once, told by `problem`, and tried again."""
        keeping = asyncio.create_task(self._keep())
        pause = AGAIN_AFTER
        try:
            while True:
                taken = self.records
                try:
                    await self._follow(stop_at_end=False)
                except (RmqJobsError, OSError) as error:
                    self._complain(str(error))
                except Exception as error:
                    log.exception("following the journal failed unexpectedly; it begins again")
                    self.problem = f"{type(error).__name__}: {error}"
                pause = AGAIN_AFTER if self.records > taken else min(pause * 2, LONGEST_AGAIN)
                await asyncio.sleep(pause)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def catch_up(self) -> None:
        """Reads up to the present end of the stream.

        Raises:
            BrokerError: The stream cannot be read.
        """
        await self._follow(stop_at_end=True)
        await self.keep()

    async def keep(self) -> None:
        """Lets time pass: jobs that are due now wait, and the oldest go where there is no room."""
        writer = self._opened()
        await self._write(lambda: writer.keep(datetime.now(UTC)))

    async def ask(self, question: Callable[[Queries], ResultT]) -> ResultT:
        """Asks the model, in the thread that writes: for a model in memory, and for one that nobody else asks."""
        return await self._write(lambda: question(Queries(self.connection)))

    # -- the stream

    async def _follow(self, *, stop_at_end: bool) -> None:
        known = await self._write(lambda: self._opened().followed)
        if known is not None and not await self._is_known(*known):
            log.warning("the journal was made anew; it is read from its beginning")
            known = None
        start = self._start if known is None else str(known[0] + 1)
        self._end = await last_offset(self._settings, self._stream)
        if self._end is None or (known is not None and known[0] >= self._end):
            self.caught_up.set()
        messages = read_stream(self._settings, self._stream, start=start, stop_at_end=stop_at_end)
        async with aclosing(messages):
            await self._take_all(messages)

    async def _is_known(self, offset: int, known_digest: bytes) -> bool:
        """Whether the stream still has what was read last at its place; a stream that has dropped it has later ones only."""
        messages = read_stream(self._settings, self._stream, start=str(offset), stop_at_end=False)
        async with aclosing(messages):
            with suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_WITHIN):
                    first = await anext(messages)
                    return first.offset > offset or digest(first) == known_digest
        return False

    async def _take_all(self, messages: AsyncGenerator[StreamMessage, None]) -> None:
        """Writes messages in batches, as they come."""
        waiting: asyncio.Queue[StreamMessage] = asyncio.Queue(BATCH * 2)

        async def read() -> None:
            async for message in messages:
                await waiting.put(message)

        reading = asyncio.create_task(read())
        try:
            while (batch := await _batch(waiting, reading)) is not None:
                await self._take(batch)
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _take(self, batch: list[StreamMessage]) -> None:
        """Writes a batch; while the disk is full it waits, and nothing is left out."""
        while True:
            try:
                self.records += await self._write(lambda: self._opened().take(batch))
            except sqlite3.OperationalError as error:
                self._complain(f"the read model cannot be written: {error}")
                await asyncio.sleep(AGAIN_AFTER)
            else:
                break
        if self.problem:
            log.info("the read model follows the journal again")
            self.problem = ""
        if self._end is not None and not self.caught_up.is_set():
            self._progress(batch[-1].offset, self._end)
            if batch[-1].offset >= self._end:
                self.caught_up.set()
        self._heard(batch)

    # -- the file

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_EVERY)
            try:
                await self.keep()
            except sqlite3.Error as error:
                self._complain(f"the read model cannot be written: {error}")

    async def _write(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _opened(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("the model is not open")
        return self._writer

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("the read model does not follow the journal", extra={"because": problem})
            self.problem = problem


async def _batch(waiting: asyncio.Queue[StreamMessage], reading: asyncio.Task[None]) -> list[StreamMessage] | None:
    """What has arrived, up to a batch of it; None when nothing more comes."""
    while waiting.empty():
        if reading.done():
            return None
        arrival = asyncio.create_task(waiting.get())
        await asyncio.wait((arrival, reading), return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            first = arrival.result()
            break
        arrival.cancel()
    else:
        first = waiting.get_nowait()
    if waiting.qsize() < BATCH:
        await asyncio.sleep(GATHER)
    return [first, *(waiting.get_nowait() for _ in range(min(waiting.qsize(), BATCH - 1)))]
