"""One time of being the active scheduler: from taking the token to losing the connection that holds it.

A step publishes the due jobs, then the next token, each confirmed, and then acknowledges the old token, all on that
connection. Whatever dies in between, the next active scheduler finds a token: at worst it publishes a tick again, with the
same id and another mark, and workers run only one of the two.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rmqjobs.amqp.holding import Holding
from rmqjobs.errors import InvalidJob, RmqJobsError
from rmqjobs.events import EventKind
from rmqjobs.scheduler.agenda import Agenda
from rmqjobs.scheduler.alarms import Alarms
from rmqjobs.scheduler.catalogue import Catalogue, Planned
from rmqjobs.scheduler.chronicle import Chronicle
from rmqjobs.scheduler.claims import Sweeper
from rmqjobs.scheduler.pings import Pinger
from rmqjobs.scheduler.plan import Decision, Missed, Tick, decide, first_entry, next_due
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire
from rmqjobs.wire.jobs import Message
from rmqjobs.wire.scheduling import Entry, Report, Token

log = logging.getLogger("rmqjobs.scheduler")

REWRITE = timedelta(minutes=5)  # well within the broker's shortest usual limit for an unacknowledged message
GATHER = timedelta(seconds=1)  # changes by reports are written at most this much later
RETRY = timedelta(seconds=1)
HELLO_EVERY = timedelta(seconds=60)  # a standby that has been silent for over twice that is gone
AHEAD = timedelta(minutes=1)  # a token that is further ahead of this clock is worth a warning


@dataclass(slots=True)
class _Work:
    """One schedule's part of a step."""

    planned: Planned
    entry: Entry
    decision: Decision
    published: list[tuple[Tick, str]] = field(default_factory=list)
    failure: RmqJobsError | None = None

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.planned.schedule.name

    def note(self, tick: Tick, job_id: str, error: RmqJobsError | None) -> None:
        """Notes what became of one tick. Those after the first that failed are published again with it, with the same ids."""
        if isinstance(error, InvalidJob):
            log.error("tick left out", extra={"schedule": self.name, "because": str(error)})
            job_id, error = "", None
        self.failure = self.failure or error
        if self.failure is None:
            self.published.append((tick, job_id))


class Active:
    """Publishes ticks, and keeps the state of the schedules.

    Args:
        holding: The connection that holds the token.
        names: Names of queues.
        token: The state, taken over.
        tags: Deliveries to acknowledge when the next token is safe.
        catalogue: The schedules.
        chronicle: Logs and records.
        pinger: Calls ping URLs.
        name: Name of this scheduler.
        now: The time of day, aware.
    """

    def __init__(
        self,
        holding: Holding,
        names: Names,
        token: Token,
        tags: Sequence[int],
        catalogue: Catalogue,
        *,
        chronicle: Chronicle,
        pinger: Pinger,
        name: str,
        now: Callable[[], datetime],
    ) -> None:
        self._holding, self._names, self.token = holding, names, token
        self.catalogue = catalogue
        self._chronicle, self.name, self._now = chronicle, name, now
        self._alarms = Alarms(chronicle, pinger)
        self._sweeper = Sweeper(holding, names)
        self._old_tags = list(tags)
        self._due, self._overdue = Agenda(), Agenda()
        self._changed_at: datetime | None = None
        self._greeted: dict[str, datetime] = {}

    async def begin(self) -> None:
        """Makes the state fit the catalogue, and writes it under this scheduler's name."""
        now, token = self._now(), self.token
        gap = (now - token.at).total_seconds() if token.at else None
        self._chronicle.tell(
            EventKind.ACTIVATED,
            version=token.version,
            before=token.by or None,
            last_written_seconds_ago=None if gap is None else round(gap, 3),
        )
        self.adopt(self.catalogue)
        await self.write()

    def adopt(self, catalogue: Catalogue) -> None:
        """Takes over the schedules of plugins and file, also when these have changed, and adds those added at runtime."""
        self.catalogue, now = catalogue.declared(), self._now()
        self._take_added()
        self._due.clear()
        self._overdue.clear()
        self._chronicle.overdue.clear()
        self._chronicle.expecting = {each.schedule.name for each in self.catalogue if each.schedule.expected_by}
        for planned in self.catalogue:
            self._fit(planned, now)
            self.plan(planned)
        self._chronicle.schedules = len(self.catalogue)
        ahead = max((each.cursor for each in self.token.entries.values()), default=now) - now
        if ahead > AHEAD:
            hint = "a clock went back, or schedulers disagree about the time; ticks up to there were published"
            self._chronicle.tell(
                EventKind.CLOCK_JUMPED, level=logging.WARNING, behind_token_seconds=round(ahead.total_seconds(), 1), hint=hint
            )

    def check(self, catalogue: Catalogue) -> None:
        """Raises `ScheduleError` when a catalogue has a name that a schedule added at runtime has."""
        other = catalogue.declared()
        for planned in self.catalogue.added():
            other.add(self.token.added[planned.schedule.name], trusted=True)

    def greeted(self, name: str) -> None:
        """Notes that a scheduler is on standby."""
        self._greeted[name] = self._now()

    @property
    def standbys(self) -> list[str]:
        """Names of the schedulers that have said lately that they are on standby."""
        latest = self._now() - 2 * HELLO_EVERY
        return sorted(name for name, at in self._greeted.items() if at > latest and name != self.name)

    def entry(self, planned: Planned) -> Entry:
        """What the token knows of a schedule."""
        return self.token.entries[planned.schedule.name]

    def is_paused(self, planned: Planned) -> bool:
        """Whether it must not tick now."""
        paused = self.entry(planned).paused
        return planned.schedule.paused if paused is None else paused

    def set_paused(self, planned: Planned, *, paused: bool) -> None:
        """Pauses or resumes a schedule for an operator; times that pass while it is paused do not count as missed."""
        entry, now, schedule = self.entry(planned), self._now(), planned.schedule
        due, first = planned.timetable.count(entry.cursor, now), planned.timetable.after(entry.cursor)
        if paused and due and first:  # its time had come, and its jitter had not passed
            self._chronicle.misfired(schedule, Missed(due, first, now, due))
        entry.paused, entry.cursor = None if paused is schedule.paused else paused, max(entry.cursor, now)
        if paused:
            self._alarms.forget(planned, entry)
        self.plan(planned)

    def take(self, planned: Planned) -> None:
        """Starts with a schedule that is new in the catalogue."""
        self._fit(planned, self._now())
        self.plan(planned)
        self._chronicle.schedules = len(self.catalogue)

    def plan(self, planned: Planned) -> None:
        """Notes when a schedule has to be looked at again."""
        name, entry = planned.schedule.name, self.entry(planned)
        self._due.note(name, None if self.is_paused(planned) else next_due(planned, entry))
        self._overdue.note(name, self._alarms.next_at(planned, entry))

    async def end(self) -> None:
        """Stops; the connection is closed, or lost."""
        await self._sweeper.close()

    def forget(self, name: str) -> None:
        """Forgets a schedule that was removed, and ends the claims of its ticks."""
        entry = self.token.entries.pop(name, None)
        if entry is not None:
            self._sweeper.forget(name, entry)
        self._due.note(name, None)
        self._overdue.note(name, None)
        self._chronicle.overdue.discard(name)

    @property
    def wake_at(self) -> datetime:
        """When there is something to do."""
        rewrite = self.token.at + REWRITE if self.token.at else self._now()
        gathered = self._changed_at + GATHER if self._changed_at else None
        return min(filter(None, (rewrite, gathered, self._due.nearest, self._overdue.nearest)))

    async def work(self) -> None:
        """Publishes what is due, raises alarms, keeps the token fresh.

        Raises:
            BrokerError: The connection is lost, and with it the right to tick.
        """
        now = self._now()
        for planned in filter(None, map(self.catalogue.get, self._overdue.take(now))):
            if self._alarms.look(planned, self.entry(planned), now):
                self.changed()
            self.plan(planned)
        due = self._due.take(now)
        if due:
            await self._tick(due, now)
        gathered = self._changed_at is not None and self._changed_at + GATHER <= now
        if gathered or self.token.at is None or not self.token.at <= now < self.token.at + REWRITE:
            await self.write()

    async def run_now(self, planned: Planned) -> str:
        """Publishes a job of the schedule beside its plan; returns the job's id."""
        now = self._now()
        job_id = wire.tick_id(planned.schedule.name, now) + wire.BY_HAND
        tick = Tick(now, now, planned.timetable.before(now), None)
        failures = await self._holding.publish([self._message(planned, tick, job_id, None, now)])
        if failures:
            raise failures[0]
        return job_id

    def heard(self, report: Report, tag: int) -> None:
        """Takes a worker's report about a tick's job."""
        self._old_tags.append(tag)
        planned = self.catalogue.get(report.schedule)
        if planned is None:
            return
        self._alarms.heard(planned, self.entry(planned), report, self._now())
        self.plan(planned)
        self.changed()

    def changed(self) -> None:
        """Notes that the token must be written soon."""
        self._changed_at = self._changed_at or self._now()

    def settled(self, tag: int) -> None:
        """Notes a delivery that may be acknowledged when the next token is safe."""
        self._old_tags.append(tag)

    def superseded(self, other: Token, tag: int, *, own: bool) -> None:
        """Takes a token that arrived while active: our own is held; a later one replaces ours, with what was ticked here."""
        if own and other.version == self.token.version:
            self.settled(tag)
            return
        if other.version <= self.token.version:
            self._holding.ack([tag])
            return
        log.error("another scheduler has written a later token", extra={"version": other.version, "by": other.by})
        take_cursors(other, self.token)
        self.token = other
        self.adopt(self.catalogue)
        self.settled(tag)
        self.changed()

    async def write(self) -> None:
        """Publishes the next token, confirmed, and lets go of everything that it replaces.

        Raises:
            RmqJobsError: The token is not in the queue, and without it nobody may tick.
        """
        now, token = self._now(), self.token
        for planned in self.catalogue:
            entry = self.entry(planned)
            entry.held = self.is_paused(planned)
            if entry.held:
                entry.cursor = max(entry.cursor, now)
        self._sweeper.sweep(token, now)
        tags, self._old_tags, self._changed_at = self._old_tags, [], None
        token.version, token.at, token.by = token.version + 1, now, self.name
        failures = await self._holding.publish([wire.token(self._names, token)])
        if failures:
            raise failures[0]
        self._holding.ack(tags)

    async def _tick(self, names: Sequence[str], now: datetime) -> None:
        """Does one step: publishes the due ticks of these schedules, then the token."""
        planned = [each for each in map(self.catalogue.get, names) if each is not None and not self.is_paused(each)]
        works = [work for work in (self._work(each, self.entry(each), now) for each in planned) if work is not None]
        orders = [(work, tick, wire.tick_id(work.name, tick.planned)) for work in works for tick in work.decision.ticks]
        mark = secrets.token_hex(8)
        messages = [self._message(work.planned, tick, job_id, mark, now) for work, tick, job_id in orders]
        failures = await self._holding.publish(messages) if messages else {}
        for place, (work, tick, job_id) in enumerate(orders):
            work.note(tick, job_id, failures.get(place))
        done = self._now()
        for work in works:
            self._settle(work, done)
        if orders or any(work.decision.missed for work in works):
            await self.write()

    def _work(self, planned: Planned, entry: Entry, now: datetime) -> _Work | None:
        """What is due for one schedule; one that cannot be planned does not hold up the others."""
        try:
            return _Work(planned, entry, decide(planned, entry, now))
        except Exception:
            log.exception("a schedule cannot be planned; it does not tick", extra={"schedule": planned.schedule.name})
            return None

    def _settle(self, work: _Work, now: datetime) -> None:
        """Moves a schedule's cursor past the ticks that were published; those that were not are tried again."""
        schedule, entry, decision = work.planned.schedule, work.entry, work.decision
        if decision.missed is not None and work.failure is None:
            self._chronicle.misfired(schedule, decision.missed)
        for tick, job_id in work.published:
            if job_id:
                entry.late = self._chronicle.ticked(schedule, tick, job_id, now=now)
                entry.ticked = tick.planned
                self._sweeper.note(entry, tick.planned)
        if schedule.expected_by is not None and entry.waiting is None and work.published:
            entry.waiting, entry.waiting_from = work.published[0][0].planned, now
        if work.failure is not None:
            log.warning("tick not published", extra={"schedule": schedule.name, "because": str(work.failure)})
        if len(work.published) < len(decision.ticks):
            entry.cursor = max([entry.cursor, *(tick.planned for tick, _ in work.published)])
            self._due.note(schedule.name, now + RETRY)
            return
        entry.cursor = decision.cursor
        self.plan(work.planned)

    def _message(self, planned: Planned, tick: Tick, job_id: str, mark: str | None, now: datetime) -> Message:
        return wire.tick(
            self._names,
            planned.schedule,
            tick.planned,
            job_id=job_id,
            period_start=tick.period_start,
            expires_at=tick.expires_at,
            reply_start=planned.schedule.ping is not None,
            mark=mark,
            now=now,
        )

    # -- the state

    def _take_added(self) -> None:
        """Adds the schedules added at runtime; one whose name a plugin or the file has taken since waits for an operator."""
        for name, fields in self.token.added.items():
            try:
                self.catalogue.add(fields, trusted=True)
            except Exception as error:  # noqa: BLE001 - of whatever version it is, it must not hold up the others
                log.error("a schedule added at runtime does not tick", extra={"schedule": name, "because": str(error)})  # noqa: TRY400

    def _fit(self, planned: Planned, now: datetime) -> None:
        schedule, entries = planned.schedule, self.token.entries
        entry = entries.get(schedule.name)
        if entry is None:
            entries[schedule.name] = first_entry(schedule, now)
            if schedule.at is not None and entries[schedule.name].cursor >= schedule.at:
                self._chronicle.misfired(schedule, Missed(1, schedule.at, schedule.at, 1))
            return
        if entry.timing != schedule.timing or (entry.held and not self.is_paused(planned)):
            entry.cursor, entry.timing, entry.held = max(entry.cursor, now), schedule.timing, False
        if schedule.expected_by is None:
            self._alarms.forget(planned, entry)
        if entry.alarmed:
            self._chronicle.overdue.add(schedule.name)


def take_cursors(token: Token, other: Token) -> None:
    """Takes over the cursors of another token, so that its ticks do not come again; nothing else of it counts."""
    for name, entry in token.entries.items():
        theirs = other.entries.get(name)
        if theirs is not None and theirs.cursor > entry.cursor:
            entry.cursor, entry.ticked = theirs.cursor, theirs.ticked
            entry.claims = sorted({*entry.claims, *theirs.claims})
