"""Looks at work queues, and takes out what waits there: each job is safe at its new place before it leaves the old one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from rmqjobs.amqp import management
from rmqjobs.amqp.holding import HeldMessage, Holding
from rmqjobs.control import Word
from rmqjobs.errors import BrokerError, ConfigurationError, ReviewInProgress
from rmqjobs.events import Event, EventKind
from rmqjobs.operations.operator import Operator
from rmqjobs.wire import deadletters
from rmqjobs.wire.jobs import Message, job_type, kept_headers, resend, text_of

HELD = 100  # jobs under way; if we are killed, these may be in both places
IDLE = 1.0  # seconds without a job, after which we look whether any are left
PATIENCE = 10  # such looks

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class QueueState:
    """A work queue as it is now; None where only the management API could tell, and it does not answer.

    Args:
        queue: Its name, without the prefix.
        ready: Jobs that wait.
        consumers: Who takes jobs from it.
        dead: Its dead letters.
        running: Jobs that workers hold.
        arriving: Jobs a second that come.
        leaving: Jobs a second that are settled.
        paused: By which word it is paused.
    """

    queue: str
    ready: int
    consumers: int
    dead: int | None = None
    running: int | None = None
    arriving: float | None = None
    leaving: float | None = None
    paused: Word | None = None

    @property
    def record(self) -> dict[str, Any]:
        """Its JSON: a contract."""
        word = self.paused
        paused = {"at": word.at, "by": word.by, "because": word.because, "until": word.until} if word else None
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"paused": paused}


async def states(operator: Operator, known: Iterable[str]) -> list[QueueState]:
    """All work queues: the known ones, and those that the broker has, where its management API answers.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    names, rates = operator.names, await _rates(operator)
    start, end = f"{names.prefix}.", ".dead"
    candidates = {*known, *(name[len(start) : -len(end)] for name in rates if name.startswith(start) and name.endswith(end))}
    try:
        paused = await operator.paused()
    except BrokerError:
        paused = {}
    found = []
    for queue in sorted(candidates):
        counts = await operator.desk.counts(names.queue(queue))
        if counts is None:
            continue
        numbers = rates.get(names.queue(queue), {})
        stats = numbers.get("message_stats", {})
        found.append(
            QueueState(
                queue,
                *counts,
                dead=await operator.desk.depth(names.dead_queue(queue)),
                running=numbers.get("messages_unacknowledged"),
                arriving=stats.get("publish_details", {}).get("rate", 0.0) if numbers else None,
                leaving=stats.get("ack_details", {}).get("rate", 0.0) if numbers else None,
                paused=paused.get(queue),
            )
        )
    return found


async def purge(operator: Operator, queue: str, limit: int, *, because: str, progress: Progress) -> int:
    """Drops jobs that wait in a queue, the oldest first; for 30 days they can be restored, with `rmqjobs dlq restore`.

    Args:
        operator: Who does it.
        queue: The work queue, without the prefix.
        limit: The most jobs.
        because: Why.
        progress: Called with how many more are done.

    Returns:
        How many were dropped.

    Raises:
        RmqJobsError: It could not go on; what is not done is still in the queue.
    """
    done = 0
    began = datetime.now(UTC)
    try:
        async for jobs in _taken(
            operator,
            queue,
            limit,
            lambda held: deadletters.purge(operator.names, held, queue, at=datetime.now(UTC), because=because),
        ):
            data = {"by": operator.by, "because": because, "reason": deadletters.PURGED}
            await operator.record(
                Event(EventKind.DROPPED, began, text_of(each.properties.message_id or ""), job_type(each), queue, data=data)
                for each in jobs
            )
            done += len(jobs)
            progress(len(jobs))
    finally:
        await operator.record_action("purge", queue=queue, because=because, jobs=done)
    return done


async def move(operator: Operator, queue: str, to: str, limit: int, *, because: str, progress: Progress) -> int:
    """Moves jobs that wait in a queue to another one, the oldest first; otherwise as `purge`.

    Raises:
        ConfigurationError: There is no such other queue.
    """
    if await operator.desk.depth(operator.names.queue(to)) is None:
        raise ConfigurationError("--to", f"there is no queue {to!r}", "See: rmqjobs queues list")
    done = 0

    def message(held: HeldMessage) -> Message:
        properties = held.properties
        target, headers = operator.names.queue(to), kept_headers(held)
        return resend(held, "", target, headers, job_id=properties.message_id, kind=properties.type)

    try:
        async for jobs in _taken(operator, queue, limit, message):
            done += len(jobs)
            progress(len(jobs))
    finally:
        await operator.record_action("move", queue=queue, to=to, because=because, jobs=done)
    return done


async def _taken(
    operator: Operator, queue: str, limit: int, message: Callable[[HeldMessage], Message]
) -> AsyncIterator[Sequence[HeldMessage]]:
    """Publishes a message for each job, then takes the job out of the queue; gives those that are taken out, some at a time."""
    name = operator.names.queue(queue)
    holding = await Holding.on(operator.connection, name, most=HELD)
    try:
        left = limit
        while left and (batch := await _batch(operator, holding, name, min(left, HELD))):
            failures = await holding.publish([message(held) for held in batch])
            done = [held for place, held in enumerate(batch) if place not in failures]
            holding.ack([held.tag for held in done])
            yield done
            if failures:
                raise next(iter(failures.values()))
            left -= len(batch)
    finally:
        await holding.close()


async def _batch(operator: Operator, holding: Holding, name: str, most: int) -> list[HeldMessage]:
    """The next jobs, held; none when the queue is empty.

    Raises:
        ReviewInProgress: Jobs wait there, and we get none.
    """
    for _ in range(PATIENCE):
        arrival = asyncio.create_task(holding.arrival())
        await asyncio.wait((arrival, holding.lost), timeout=IDLE, return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()
        if holding.lost.done():
            raise holding.lost.result()
        if not holding.inbox.empty():
            return [holding.inbox.get_nowait() for _ in range(min(most, holding.inbox.qsize()))]
        if not await operator.desk.depth(name):
            return []
    raise ReviewInProgress(f"jobs wait in {name!r}, and a worker has them to itself. Pause the queue first, then try again")


async def _rates(operator: Operator) -> dict[str, Mapping[str, Any]]:
    try:
        api = await management.find(operator.settings, operator.connection)
        return {} if api is None else await api.rates(operator.settings.broker.vhost)
    except BrokerError:
        return {}
