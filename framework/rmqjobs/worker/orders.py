"""Does what operators say: keeps paused queues paused, stops cancelled jobs, and answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rmqjobs.amqp.connection import Connection
from rmqjobs.amqp.controlling import ControlFeed
from rmqjobs.control import LASTING, WHOLE, Verb, Word
from rmqjobs.errors import BrokerError, JobCancelled
from rmqjobs.execution import Run
from rmqjobs.topology import Names
from rmqjobs.wire.headers import REPLAYED_AT, instant
from rmqjobs.wire.jobs import Envelope, Message
from rmqjobs.wire.values import as_json

log = logging.getLogger("rmqjobs.worker")

LOOK_EVERY = 1.0  # seconds by which the end of a pause can be late
HEAR_AGAIN = 30  # looks until the next try to read a stream that cannot be read
FRESH = timedelta(minutes=1)  # an order that does not say until when it counts
_HINT = "jobs run all the same, also those of paused queues; see: rmqjobs doctor"


class Orders:
    """What operators have said to this worker.

    Args:
        names: Has the name of the stream.
        worker: Its name: words are for those whose name begins with the word's subject.
        queues: The work queues it consumes from.
        switch: Pauses a queue, or resumes it.
        running: The runs that have not ended.
        publish: Sends an answer, without waiting.
        report: Says how this worker is; if asked, with the stacks of what runs.
        now: The time of day, aware.
    """

    def __init__(
        self,
        names: Names,
        worker: str,
        queues: Collection[str],
        *,
        switch: Callable[[str, bool], Awaitable[None]],
        running: Callable[[], Iterator[Run]],
        publish: Callable[[Message], None],
        report: Callable[[bool], Awaitable[dict[str, Any]]],
        now: Callable[[], datetime],
    ) -> None:
        self._worker, self._queues = worker, queues
        self._switch, self._running, self._publish, self._report, self._now = switch, running, publish, report, now
        self._feed = ControlFeed(names, self._hear)
        self._changed = asyncio.Event()
        self._switching = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()
        self.has_cancels = False  # so that a job need not ask
        self.is_drained = False  # takes no jobs until an operator says so
        self.told_to_stop = asyncio.Event()
        self.paused: dict[str, str] = {}  # queue and why, as it is now

    async def follow(self, connection: Connection) -> None:
        """Reads what was said, before anything is consumed. A stream that cannot be read stops nobody."""
        try:
            await self._feed.follow(connection)
        except BrokerError as error:
            if connection.closed.done():
                raise
            log.warning("cannot hear operators", extra={"because": str(error), "hint": _HINT})
        await self._keep_paused()

    async def run(self, connection: Callable[[], Connection | None]) -> None:
        """Keeps queues as operators want them, until cancelled."""
        looks = 0
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()
            except TimeoutError:
                looks += 1
            self._changed.clear()
            current = connection()
            try:
                if not self._feed.is_heard and looks % HEAR_AGAIN == 0 and current is not None and not current.closed.done():
                    await self._feed.follow(current)
                    log.info("operators are heard again")
                await self._keep_paused()
            except BrokerError as error:
                log.debug("cannot follow orders", extra={"because": str(error)})
            except Exception:
                log.exception("following orders failed unexpectedly; it continues")

    def refuse(self, envelope: Envelope) -> None:
        """Lets a job pass, unless it is cancelled.

        Raises:
            JobCancelled: It is.
        """
        replayed_at = instant(envelope.job.headers, REPLAYED_AT) if REPLAYED_AT in envelope.job.headers else None
        word = self._feed.standing.cancel_of(envelope.job.id, self._now(), replayed_at)
        if word is not None:
            raise JobCancelled(f"cancelled {word}")

    async def _keep_paused(self) -> None:
        async with self._switching:
            await self._switch_queues()

    async def _switch_queues(self) -> None:
        now, standing = self._now(), self._feed.standing
        standing.forget(now)
        wanted = {queue: str(word) for queue in self._queues if (word := standing.pause_of(queue, now)) is not None}
        if self.is_drained:
            wanted |= {queue: "this worker drains" for queue in self._queues if queue not in wanted}
        for queue in self._queues:
            if (queue in wanted) != (queue in self.paused):
                log.info(
                    "queue paused" if queue in wanted else "queue resumed", extra={"queue": queue, "why": wanted.get(queue)}
                )
                await self._switch(queue, queue in wanted)
        self.paused = wanted

    # -- what is said

    def _hear(self, words: Sequence[Word], reply_to: str | None) -> None:
        cancelled = {word.subject: word for word in words if word.verb is Verb.CANCEL}
        if cancelled:
            self.has_cancels = True
            self._stop(cancelled)
        if len(cancelled) < len(words):
            self._changed.set()
        for word in words:
            if word.verb not in LASTING and self._is_meant(word) and (word.until or word.at + FRESH) > self._now():
                task = asyncio.create_task(self._answer(word, reply_to))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    def _is_meant(self, word: Word) -> bool:
        return f"{self._worker}{WHOLE}".startswith(word.subject)

    def _stop(self, cancelled: Mapping[str, Word]) -> None:
        for run in list(self._running()):
            if (word := cancelled.get(run.job.id)) is not None:
                log.info("cancelled", extra={"job": run.job.id, "type": run.job.type, "by": word.by, "why": word.because})
                run.stop(JobCancelled(f"cancelled {word}"))

    async def _answer(self, word: Word, reply_to: str | None) -> None:
        try:
            content = await self._obey(word)
        except Exception as error:
            log.exception("an order failed unexpectedly", extra={"verb": word.verb.value})
            content = {"worker": self._worker, "error": f"{type(error).__name__}: {error}"}
        if reply_to:
            self._publish(Message("", reply_to, as_json(content)))

    async def _obey(self, word: Word) -> dict[str, Any]:
        if word.verb not in (Verb.PING, Verb.STACKS):
            log.info("told by an operator", extra={"to": word.verb.value, "by": word.by, "why": word.because})
        match word.verb:
            case Verb.DRAIN | Verb.UNDRAIN:
                self.is_drained = word.verb is Verb.DRAIN
                self._changed.set()
            case Verb.STOP:
                self.told_to_stop.set()
        return await self._report(word.verb is Verb.STACKS)
