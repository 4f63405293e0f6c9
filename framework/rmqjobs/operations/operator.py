"""An operator, who says things to workers."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue

from rmqjobs.amqp.connection import Connection, connect, connection_name
from rmqjobs.amqp.controlling import Speaker
from rmqjobs.amqp.reviewing import Desk
from rmqjobs.control import CANCEL_KEPT, WHOLE, Verb, Word
from rmqjobs.errors import RmqJobsError
from rmqjobs.events import Event, EventKind
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire import events as wire

log = logging.getLogger("rmqjobs.operations")

AT_ONCE = 500  # records in one message
CLOCKS_DIFFER = timedelta(minutes=1)


class Operator:
    """An operator at work.

    Args:
        connection: The connection to use.
        settings: Has the prefix.
        by: Who acts; the journal and the workers' logs tell.
    """

    def __init__(self, connection: Connection, settings: Settings, *, by: str) -> None:
        self.settings, self.by, self.names = settings, by, Names(settings.prefix)
        self.connection, self.desk = connection, Desk(connection)
        self._speaker = Speaker(connection, self.names)

    async def paused(self) -> dict[str, Word]:
        """Paused queues, and by which word.

        Raises:
            BrokerError: The control stream cannot be read.
        """
        return (await self._speaker.standing()).paused(datetime.now(UTC))

    async def pause(self, queue: str, *, because: str = "", until: datetime | None = None) -> None:
        """Has all workers take nothing more from a queue; those that start later too.

        Args:
            queue: The work queue, without the prefix.
            because: Why.
            until: When it ends by itself.

        Raises:
            RmqJobsError: It is not known to be said.
        """
        await self._say(Word(Verb.PAUSE, queue, datetime.now(UTC), self.by, because, until))
        await self.record_action("pause", queue=queue, because=because, until=until.isoformat() if until else None)

    async def resume(self, queue: str, *, because: str = "") -> None:
        """Ends the pause of a queue; raises as `pause` does."""
        await self._say(Word(Verb.RESUME, queue, datetime.now(UTC), self.by, because))
        await self.record_action("resume", queue=queue, because=because)

    async def cancel(self, jobs: Sequence[tuple[str, str]], *, because: str = "", due: datetime | None = None) -> None:
        """Cancels jobs: those that wait are dropped when they come, those that run are stopped.

        Args:
            jobs: Ids and types; the type may be empty.
            because: Why.
            due: When the last of them is due, if that is known: until then the cancel is kept, and for a month.

        Raises:
            RmqJobsError: It is not known to be said.
        """
        now = datetime.now(UTC)
        until = max(now, due or now) + CANCEL_KEPT
        await self._say(*(Word(Verb.CANCEL, job_id, now, self.by, because, until) for job_id, _ in jobs))
        data: dict[str, JsonValue] = {"by": self.by, "because": because}
        await self.record(Event(EventKind.CANCELLED, now, job_id, kind, data=data) for job_id, kind in jobs)

    async def ask(
        self, verb: Verb, worker: str = "", *, because: str = "", within: timedelta, answers: int | None = None
    ) -> list[dict[str, Any]]:
        """Tells workers to do something, and returns how they are: `worker.presence.Presence.report` of each that answers.

        Args:
            verb: `PING`, `STACKS`, `DRAIN`, `UNDRAIN` or `STOP`.
            worker: How its name begins, or with `control.WHOLE` at its end all of it; all workers when empty.
            because: Why.
            within: How long to wait for answers.
            answers: Return as soon as there are this many.
        """
        now = datetime.now(UTC)
        until = now + max(within, CLOCKS_DIFFER)  # a worker whose clock is ahead must not take it for late
        word = Word(verb, worker, now, self.by, because, until)
        found = [json.loads(body) for body in await self._speaker.ask(word, within, answers=answers)]
        if verb not in (Verb.PING, Verb.STACKS):
            await self.record_action(verb.value, worker=worker.removesuffix(WHOLE), because=because, workers=len(found))
        return sorted(found, key=lambda report: str(report.get("worker")))

    async def record_action(self, action: str, **details: JsonValue) -> None:
        """Writes to the journal what this operator did: `details` say to what, why, and how many."""
        data = {"action": action, "by": self.by} | {name: value for name, value in details.items() if value not in (None, "")}
        await self.record([Event(EventKind.ACTED, datetime.now(UTC), "", "", data=data)])

    async def record(self, events: Any) -> None:
        """Writes records to the journal; if that fails, what they tell is done all the same."""
        lines = [wire.encode(event) for event in events]
        try:
            for first in range(0, len(lines), AT_ONCE):
                await self.desk.publish([wire.batch(self.names, lines[first : first + AT_ONCE], source=self.by)])
        except RmqJobsError as error:
            log.warning("the journal does not have this action", extra={"because": str(error)})

    async def _say(self, *words: Word) -> None:
        await self._speaker.say(words)


@asynccontextmanager
async def operator(settings: Settings, *, by: str) -> AsyncIterator[Operator]:
    """An operator, connected.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    connection = await connect(settings.broker, name=connection_name("operator"), heartbeat=settings.heartbeat)
    try:
        yield Operator(connection, settings, by=by)
    finally:
        await connection.close()
