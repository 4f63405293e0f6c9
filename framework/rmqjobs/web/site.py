"""What a running server has: a read model that follows the journal, listeners, and operators for what people do."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO, TypeVar, cast

from fastapi import Depends, Request

from rmqjobs.amqp.connection import connection_name
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.beats import Beats
from rmqjobs.events import EventKind
from rmqjobs.journal import Journal
from rmqjobs.operations.operator import Operator, operator
from rmqjobs.readmodel import schema
from rmqjobs.readmodel.follower import Follower, Progress, ignore
from rmqjobs.readmodel.queries import Queries
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.web.listeners import Listeners

MOST_FILES = 100  # servers on one machine, each with a file of its own
MEGABYTE = 10**6

ResultT = TypeVar("ResultT")


class Site:
    """One server's.

    Args:
        settings: The broker, the prefix, and the file of the model.
        progress: Called while the model is made.
    """

    def __init__(self, settings: Settings, *, progress: Progress = ignore) -> None:
        self.settings = settings
        self.listeners = Listeners()
        self._lock: TextIO | None = None
        self._progress, self._stopped = progress, False
        self.path = Path(settings.web_model) if settings.web_model else _usual_path(settings)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Follows the journal as long as the context lasts.

        Raises:
            OSError: The model's file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._lock = _own(self.path)
        limit = self.settings.web_model_megabytes * MEGABYTE
        self.follower = Follower(self.settings, self.path, max_bytes=limit, progress=self._progress, heard=self.listeners.heard)
        await self.follower.open()
        following = asyncio.create_task(self.follower.run())
        try:
            async with self._beating():
                yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self.follower.close()
            self._lock.close()

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Writes to the journal how this server is; a user who may not do that serves all the same."""
        settings, name = self.settings, connection_name("web")
        link = PublishLink(lambda: settings.broker, name=name, heartbeat=settings.heartbeat)
        journal = Journal(link, Names(settings.prefix), source=name, interval=settings.journal_interval)
        beats = Beats(journal, EventKind.WEB, self._details, lambda: datetime.now(UTC))
        link.open()
        tasks = [asyncio.create_task(each) for each in (journal.run(), beats.run(settings.beat_interval.total_seconds()))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._stopped = True
            beats.write()
            await journal.close()
            await link.close()

    def _details(self) -> dict[str, str | int]:
        state = "stopped" if self._stopped else "behind" if self.trouble else "ready"
        return {"state": state, "records": self.follower.records, **({"because": self.trouble} if self.trouble else {})}

    @property
    def trouble(self) -> str:
        """Why the model is not up to date; empty when it is."""
        if self.follower.problem:
            return self.follower.problem
        return "" if self.follower.caught_up.is_set() else "the journal is being read"

    async def ask(self, question: Callable[[Queries], ResultT]) -> ResultT:
        """Asks the model, in a thread, on a connection of its own."""

        def answer() -> ResultT:
            with closing(schema.connect(self.path, read_only=True)) as connection:
                return question(Queries(connection))

        return await asyncio.to_thread(answer)

    def operator(self, by: str) -> AbstractAsyncContextManager[Operator]:
        """Somebody who acts through this server."""
        return operator(self.settings, by=by)


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    return cast("Site", request.app.state.site)


def who(request: Request) -> str:
    """Who asks, for the journal."""
    return f"api@{request.client.host if request.client else 'unknown'}"


TheSite = Annotated[Site, Depends(site_of)]
Who = Annotated[str, Depends(who)]


def _usual_path(settings: Settings) -> Path:
    """A file in the user's cache, for this broker and prefix."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    broker = settings.broker
    name = hashlib.blake2b(f"{broker.endpoints}{broker.vhost}".encode(), digest_size=4).hexdigest()
    return cache / "rmqjobs" / f"{settings.prefix}-{name}.sqlite"


def _own(path: Path) -> tuple[Path, TextIO]:
    """A file that no other server writes: this one, or one with a number."""
    for number in range(MOST_FILES):
        mine = path.with_suffix(f".{number}.sqlite") if number else path
        lock = mine.with_name(mine.name + ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return mine, lock
    raise OSError(f"{MOST_FILES} other servers have taken {path} and its like")
