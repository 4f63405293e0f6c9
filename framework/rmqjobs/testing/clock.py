"""What a schedule does while a clock moves, without a broker and without waiting; for tests of plugins."""

from __future__ import annotations

from datetime import datetime

from pydantic_core import to_json

from rmqjobs.job import Job, Payload
from rmqjobs.plugin import Plugin
from rmqjobs.plugins import registry_of
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.plan import decide, first_entry, next_due
from rmqjobs.wire.scheduling import tick_id


def jobs_of(plugin: Plugin, schedule: str, start: datetime, end: datetime) -> list[tuple[Payload, Job]]:
    """Payload and job of each tick between two aware instants, as a scheduler that is up all the time publishes them.

    Args:
        plugin: Has the schedule and its handler.
        schedule: Its name, with or without the plugin's before it.
        start: The clock when the scheduler starts; a tick at exactly this moment counts as past.
        end: The clock at the end.

    Raises:
        ScheduleError: There is no such schedule, or it cannot be used.
        ValueError: An instant has no time zone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError(f"{start.isoformat()} to {end.isoformat()}: give aware instants, such as datetime(…, tzinfo=UTC)")
    registry = registry_of(plugin)
    name = schedule if schedule.startswith(f"{plugin.name}.") else f"{plugin.name}.{schedule}"
    planned = Catalogue(registry).find(name)
    handler = registry.handler(planned.schedule.type)
    payload = handler.validate(to_json(dict(planned.schedule.payload)))
    entry, found = first_entry(planned.schedule, start), []
    while (now := next_due(planned, entry)) is not None and now <= end:
        decision = decide(planned, entry, now)
        for tick in decision.ticks:
            job = Job(
                tick_id(name, tick.planned),
                handler.job_type,
                max_attempts=handler.retry.max_attempts,
                queue=handler.queue,
                schedule=name,
                scheduled_for=tick.planned,
                period_start=tick.period_start,
            )
            found.append((payload, job))
            entry.ticked = tick.planned
        entry.cursor = decision.cursor
    return found
