"""Writes to the journal which jobs were published, beside publishing them: never holds one up, and never costs one."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from rmqjobs.amqp.connection import connection_name
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.amqp.sidelink import SideLink
from rmqjobs.errors import PermissionMissing
from rmqjobs.events import Event, EventKind
from rmqjobs.journal import Journal
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire.headers import EXPIRES_AT, RUN_AT
from rmqjobs.wire.ids import made_at
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.publishing")

AN_ID_IS_NEW = timedelta(minutes=1)


class Announcer:
    """Takes messages that RabbitMQ has confirmed, and writes a `published` record for each.

    Args:
        settings: The prefix, and how often to write.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._names = settings, Names(settings.prefix)
        self._source = connection_name("publisher")
        self._journal: Journal | None = None  # there while `run` runs

    def published(self, message: Message) -> None:
        """Takes one message."""
        if self._journal is not None:
            self._journal.record(record_of(message))

    async def run(self, link: PublishLink) -> None:
        """Writes until cancelled, on a channel of its own on the link's connection, and then what is left."""
        settings = self._settings
        side = _Allowed(SideLink(lambda: link.connection))
        journal = self._journal = Journal(
            side, self._names, source=self._source, interval=settings.journal_interval, timeout=settings.publish_timeout
        )
        writing = asyncio.create_task(journal.run())
        try:
            await side.refused.wait()  # until the end, for nearly everybody
            log.warning("this program may not write to the journal", extra={"because": side.because, "hint": _HINT})
        finally:
            self._journal = None
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            if not side.refused.is_set():
                closing = asyncio.create_task(journal.close())
                await asyncio.wait((closing,), timeout=settings.publish_timeout.total_seconds())
                closing.cancel()


_HINT = (
    "jobs are published all the same; allow it, see `rmqjobs topology permissions publisher`, or set journal_published = false"
)


class _Allowed:
    """Passes messages on until the broker says that this user may not publish there at all."""

    def __init__(self, link: SideLink) -> None:
        self._link = link
        self.refused, self.because = asyncio.Event(), ""

    async def publish(self, message: Message, timeout: timedelta) -> None:
        try:
            await self._link.publish(message, timeout)
        except PermissionMissing as error:
            self.because = str(error)
            self.refused.set()
            raise


def record_of(message: Message) -> Event:
    """The `published` record of a job's message."""
    headers = message.headers or {}
    data = {
        name: value
        for name, value in (
            ("run_at", headers.get(RUN_AT)),
            ("expires_at", headers.get(EXPIRES_AT)),
            ("priority", message.priority),
            ("app", message.app_id),
        )
        if value is not None
    }
    job_id, now = message.message_id or "", datetime.now(UTC)
    made = made_at(job_id)  # somebody's own id may look like ours, and have any time in it
    at = made if made is not None and abs(now - made) < AN_ID_IS_NEW else now
    return Event(EventKind.PUBLISHED, at, job_id, message.type or "", data=data)
