"""Whether the jobs of ticks also succeed: reports of workers, ping URLs, and the alarm when a success is overdue."""

from __future__ import annotations

import logging
from datetime import datetime

from rmqjobs.events import EventKind
from rmqjobs.schedule import short
from rmqjobs.scheduler.catalogue import Planned
from rmqjobs.scheduler.chronicle import Chronicle
from rmqjobs.scheduler.pings import Pinger
from rmqjobs.wire.scheduling import Entry, Report, tick_id


class Alarms:
    """Keeps in a schedule's entry what it waits for, and raises the alarm when that is late.

    Args:
        chronicle: Logs and records.
        pinger: Calls ping URLs.
    """

    def __init__(self, chronicle: Chronicle, pinger: Pinger) -> None:
        self._chronicle, self._pinger = chronicle, pinger

    def next_at(self, planned: Planned, entry: Entry) -> datetime | None:
        """When a success becomes overdue; None when none is waited for, or the alarm has been raised."""
        limit = planned.schedule.expected_by
        if limit is None or entry.waiting is None or entry.alarmed:
            return None
        return max(entry.waiting, entry.waiting_from or entry.waiting) + limit

    def look(self, planned: Planned, entry: Entry, now: datetime) -> bool:
        """Raises the alarm if it is time; returns whether it did."""
        at = self.next_at(planned, entry)
        if at is None or at > now or planned.schedule.expected_by is None:
            return False
        self._raise(planned, entry, f"no success within {short(planned.schedule.expected_by)}")
        return True

    def heard(self, planned: Planned, entry: Entry, report: Report, now: datetime) -> None:
        """Takes a worker's report about a tick's job."""
        schedule = planned.schedule
        if not report.by_hand:
            entry.outcome, entry.outcome_for, entry.outcome_at = report.status, report.scheduled_for, now
        if schedule.ping is not None:
            self._pinger.ping(schedule.name, schedule.ping, report.status, report.reason)
        if report.status == "done":
            self._chronicle.succeeded_at[schedule.name] = now.timestamp()
            self._succeeded(planned, entry, report)
        elif report.status == "dead" and entry.waiting is not None and not entry.alarmed:
            self._raise(planned, entry, f"its job was given up: {report.reason}")

    def forget(self, planned: Planned, entry: Entry) -> None:
        """Stops waiting for a success."""
        entry.waiting, entry.alarmed = None, False
        self._chronicle.overdue.discard(planned.schedule.name)

    def _raise(self, planned: Planned, entry: Entry, because: str) -> None:
        entry.alarmed = True
        schedule, waiting = planned.schedule, entry.waiting
        self._chronicle.overdue.add(schedule.name)
        self._chronicle.tell(
            EventKind.OVERDUE,
            schedule,
            level=logging.ERROR,
            job_id=tick_id(schedule.name, waiting) if waiting else "",
            waiting_since=waiting.isoformat() if waiting else None,
            because=because,
        )

    def _succeeded(self, planned: Planned, entry: Entry, report: Report) -> None:
        if entry.waiting is None or report.scheduled_for < entry.waiting:
            return
        if entry.alarmed:
            self._chronicle.tell(EventKind.RECOVERED, planned.schedule, level=logging.WARNING, job_id=report.job_id)
        self.forget(planned, entry)
        following = planned.timetable.after(report.scheduled_for)
        entry.waiting = following if following is not None and following <= entry.cursor else None
