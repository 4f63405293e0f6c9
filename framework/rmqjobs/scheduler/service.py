"""The scheduler as a process: stands by, is active while it holds the token, and begins again when the token is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from rmqjobs.amqp.connection import LIVED, Backoff, Connection, connection_name
from rmqjobs.amqp.declaring import declare
from rmqjobs.amqp.holding import Holding
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.beats import Beats
from rmqjobs.errors import BrokerUnavailable, MalformedMessage, NewerToken, RmqJobsError
from rmqjobs.events import EventKind
from rmqjobs.journal import Journal
from rmqjobs.policywatch import PolicyWatch
from rmqjobs.scheduler.active import HELLO_EVERY, Active
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.chronicle import Chronicle
from rmqjobs.scheduler.commands import Commands
from rmqjobs.scheduler.pings import Pinger
from rmqjobs.scheduler.standby import Takeover, Turn
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, build, scheduling
from rmqjobs.wire import scheduling as wire
from rmqjobs.wire.scheduling import Barrier, Command, Content, Hello, Report, Token, Unreadable

log = logging.getLogger("rmqjobs.scheduler")

LOOK_EVERY = 5.0  # seconds after which clock and file are checked, even if nothing is due
JUMP = 2.0  # seconds of difference between the clock and the steady one that are worth a warning
STANDBY_AFTER = 1.0
STOP_WITHIN = 5.0
OPEN_WITHIN = 30.0  # while a cluster elects leaders, some calls are never answered
OFFERS_WITHIN = 0.5
NOT_FOR_US = 30.0  # seconds before a token that is too new for this version is looked at again


class Scheduler:
    """One scheduler; any number may run.

    Args:
        load: Makes the catalogue; called again when the file changes and when the token is taken.
        settings: The broker, and how to work.
        file: The file of schedules, checked for changes.
        now: The time of day, aware.
        steady: Monotonic seconds, to notice when the time of day jumps.
    """

    def __init__(
        self,
        load: Callable[[], Catalogue],
        settings: Settings,
        *,
        file: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._settings, self._file, self._now, self._steady = load, settings, file, now, steady
        self._names = Names(settings.prefix)
        self.name = connection_name("scheduler")
        link = PublishLink(lambda: settings.broker, name=connection_name("scheduler-journal"), heartbeat=settings.heartbeat)
        self._link = link
        self._journal = Journal(link, self._names, source=self.name, interval=settings.journal_interval)
        self.chronicle = Chronicle(self._journal, now)
        self._stopped = False
        self._beats = Beats(self._journal, EventKind.SCHEDULER, self._details, now)
        self.policies = PolicyWatch(settings)
        self._pinger = Pinger()
        self._token = Token()  # the last state seen; offered again if the queue is lost
        self._catalogue = load()
        self._changed_at = self._modified()
        self._active: Active | None = None
        self._holding: Holding | None = None
        self._difference = self._clock_difference()

    @property
    def is_active(self) -> bool:
        """Whether it holds the token."""
        return self._active is not None

    @property
    def is_ready(self) -> bool:
        """Whether it is active or on standby."""
        return self._holding is not None and not self._holding.lost.done()

    @property
    def trouble(self) -> str:
        """Why this scheduler cannot be relied on; empty when it can."""
        return self.policies.loss if self.is_ready else "not ready: see the log"

    async def run(self, stop: asyncio.Event) -> None:
        """Works until told to stop.

        Raises:
            BrokerError: The broker is not there at the start, or refuses us.
        """
        interval = self._settings.beat_interval.total_seconds()
        working = (self._journal.run(), self.policies.run(self._connection), self._beats.run(interval))
        beside = [asyncio.create_task(each) for each in working]
        ended = asyncio.create_task(stop.wait())
        backoff = Backoff()
        holding: Holding | None = await self._open()
        try:
            while holding is not None:
                started = self._steady()
                await self._until_served(holding, ended)
                if self._steady() - started > LIVED:
                    backoff.reset()
                holding = await self._open_again(backoff, ended)
        finally:
            for task in (*beside, ended):
                task.cancel()
            await asyncio.gather(*beside, ended, return_exceptions=True)
            await self._pinger.close()
            self._stopped = True
            self._beats.write()
            await self._journal.close()
            await self._link.close()

    def _details(self) -> dict[str, JsonValue]:
        state = "stopped" if self._stopped else "active" if self.is_active else "standby"
        return {"state": state, "schedules": len(self._catalogue)}

    def _connection(self) -> Connection | None:
        return self._holding.connection if self._holding is not None else None

    async def _open(self) -> Holding:
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                return await Holding.open(self._settings, self._names.scheduler, role="scheduler", prepare=self._declare)
        except TimeoutError:
            raise BrokerUnavailable(f"the broker accepted us and answered nothing for {OPEN_WITHIN:g} s") from None

    async def _open_again(self, backoff: Backoff, ended: asyncio.Task[bool]) -> Holding | None:
        """Another connection, as soon as there is one; None when it is time to stop."""
        while not ended.done():
            await asyncio.wait((ended,), timeout=backoff.delay())
            if ended.done():
                return None
            try:
                return await self._open()
            except RmqJobsError as error:
                log.warning("cannot connect", extra={"broker": str(self._settings.broker), "because": str(error)})
        return None

    async def _declare(self, connection: Connection) -> None:
        if self._settings.declare:
            await declare(connection, build(prefix=self._settings.prefix) + scheduling(self._settings.prefix))

    async def _until_served(self, holding: Holding, ended: asyncio.Task[bool]) -> None:
        """Serves a connection; when told to stop, it does not wait long for a broker that confirms nothing."""
        serving = asyncio.create_task(self._serve(holding, ended))
        try:
            await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((serving,), timeout=STOP_WITHIN)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _serve(self, holding: Holding, ended: asyncio.Task[bool]) -> None:
        """Serves one connection: stands by, perhaps becomes active, until the connection is lost or it is told to stop."""
        self._holding, reason = holding, ""
        try:
            await holding.publish([wire.token(self._names, self._token)])
            await self._stand_by(holding, ended)
            while not ended.done() and not holding.lost.done():
                await self._step(holding)
                await self._pause(holding, ended)
            reason = str(holding.lost.result()) if holding.lost.done() else ""
        except NewerToken as error:
            log.error("this scheduler cannot take over", extra={"because": str(error)})  # noqa: TRY400 - the sentence says it
            await holding.close()
            await asyncio.wait((ended,), timeout=NOT_FOR_US)
        except RmqJobsError as error:
            reason = str(error)
        except Exception as error:
            log.exception("the scheduler failed unexpectedly; it lets the token go and begins again")
            reason = f"{type(error).__name__}: {error}"
        finally:
            if self._active is not None:
                self._token = self._active.token
                await self._active.end()
            self.chronicle.overdue.clear()
            self.chronicle.expecting = set()
            was_active, self._active, self._holding, self.chronicle.active = self.is_active, None, None, False
            await holding.close()
        if not ended.done():
            log.warning("no longer active" if was_active else "connection lost", extra={"because": reason})

    async def _stand_by(self, holding: Holding, ended: asyncio.Task[bool]) -> None:
        """Waits for the token; returns when it is active, or never will be."""
        takeover, timeout, hello_at = Takeover(holding, self._names), STANDBY_AFTER, self._now()
        turn = Turn(holding, self._names)
        while self._active is None and not ended.done() and not holding.lost.done():
            await self._wait(holding, ended, timeout)
            if not holding.inbox.empty():
                await takeover.begin()
            elif not ended.done() and self._now() >= hello_at:
                if timeout is STANDBY_AFTER:
                    log.info("on standby: another scheduler is active", extra={"scheduler": self.name})
                await holding.publish([wire.hello(self._names, self.name)])
                timeout, hello_at = LOOK_EVERY, self._now() + HELLO_EVERY
            elif timeout is LOOK_EVERY:
                await turn.check()
            self._look_at_file()
            for content, tag in self._arrivals(holding):
                if takeover.take(content, tag):
                    await self._become_active(holding, takeover, ended)
                    break  # what arrives from here on is for the active one

    async def _become_active(self, holding: Holding, takeover: Takeover, ended: asyncio.Task[bool]) -> None:
        if takeover.knows_nothing:
            # The queue may just have been lost: whoever was active before is about to offer what it knows.
            await asyncio.wait((ended, holding.lost), timeout=OFFERS_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            for content, tag in self._arrivals(holding):
                takeover.take(content, tag)
        self._active = Active(
            holding,
            self._names,
            takeover.token(self._token),
            takeover.tags,
            self._catalogue,
            chronicle=self.chronicle,
            pinger=self._pinger,
            name=self.name,
            now=self._now,
        )
        self.chronicle.active = True
        await self._active.begin()
        self._beats.write()
        for content, tag in takeover.others():
            await self._take(content, tag, holding)

    async def _step(self, holding: Holding) -> None:
        """Does everything that has arrived, then everything that is due."""
        active = self._active
        if active is None:
            return
        for content, tag in self._arrivals(holding):
            await self._take(content, tag, holding)
        self._look_at_clock()
        if self._look_at_file():
            active.adopt(self._catalogue)
            await active.write()
        await active.work()

    async def _take(self, content: Content, tag: int, holding: Holding) -> None:
        active = self._active
        if active is None:
            return
        match content:
            case Token():
                active.superseded(content, tag, own=content.by == self.name)
            case Unreadable():
                log.error("dropped a token that cannot be read", extra={"because": content.because})
                holding.ack([tag])
            case Report():
                self._heard(content, tag, active)
            case Command():
                await self._answer(content, active, holding)
                holding.ack([tag])
            case Hello(name):
                active.greeted(name)
                holding.ack([tag])
            case Barrier():
                holding.ack([tag])

    def _heard(self, report: Report, tag: int, active: Active) -> None:
        try:
            active.heard(report, tag)
        except Exception:  # it would come again, to one scheduler after the other
            log.exception("a report failed unexpectedly; it is left out", extra={"job": report.job_id})

    async def _answer(self, command: Command, active: Active, holding: Holding) -> None:
        """Carries a command out, unless whoever asked has given up: then it must not happen later."""
        if not await holding.is_there(command.reply_to):
            log.warning("command ignored: nobody waits for its answer", extra={"command": command.verb, "by": command.by})
            return
        try:
            answer = await Commands(active, self.chronicle, self._now).carry_out(command)
        except RmqJobsError:
            raise
        except Exception as error:  # it must not bring down one scheduler after the other
            log.exception("a command failed unexpectedly", extra={"command": command.verb})
            answer = {"error": f"{type(error).__name__}: {error}. The scheduler's log has more", "code": RmqJobsError.code}
        await holding.publish([wire.answer(command, answer | {"standbys": active.standbys})])

    async def _pause(self, holding: Holding, ended: asyncio.Task[bool]) -> None:
        """Waits until something arrives or is due, but no longer than until the clock has to be checked."""
        due_in = (self._active.wake_at - self._now()).total_seconds() if self._active else 0.0
        await self._wait(holding, ended, min(max(due_in, 0.0), LOOK_EVERY))

    async def _wait(self, holding: Holding, ended: asyncio.Task[bool], timeout: float) -> None:
        arrival = asyncio.create_task(holding.arrival())
        await asyncio.wait((arrival, ended, holding.lost), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()

    def _arrivals(self, holding: Holding) -> Iterator[tuple[Content, int]]:
        """What is in the inbox; a message that cannot be read is logged and dropped, so that it stops nobody."""
        while not holding.inbox.empty():
            message = holding.inbox.get_nowait()
            try:
                yield wire.read(message), message.tag
            except MalformedMessage as error:
                log.warning("message dropped", extra={"because": str(error)})
                holding.ack([message.tag])

    # -- clock and file

    def _clock_difference(self) -> float:
        return self._now().timestamp() - self._steady()

    def _look_at_clock(self) -> None:
        difference = self._clock_difference()
        jump, self._difference = difference - self._difference, difference
        if abs(jump) >= JUMP:
            direction = "forwards" if jump > 0 else "backwards"
            self.chronicle.tell(EventKind.CLOCK_JUMPED, level=logging.WARNING, seconds=round(jump, 3), direction=direction)

    def _modified(self) -> float | None:
        try:
            return self._file.stat().st_mtime if self._file is not None else None
        except OSError:
            return None

    def _look_at_file(self) -> bool:
        """Whether the schedules were reread; a file that cannot be used changes nothing, and is logged once."""
        modified = self._modified()
        if modified == self._changed_at:
            return False
        self._changed_at = modified
        try:
            catalogue = self._load()
            if self._active is not None:
                self._active.check(catalogue)
        except RmqJobsError as error:
            log.error("schedules stay as they are: the changed file cannot be used", extra={"because": str(error)})  # noqa: TRY400
            return False
        self._catalogue = catalogue
        self.chronicle.tell(EventKind.CHANGED, file=str(self._file), schedules=len(catalogue))
        return True
