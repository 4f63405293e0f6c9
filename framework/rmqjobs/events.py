"""What happened to jobs and schedules, as the journal records it. Floor 2: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue


class EventKind(StrEnum):
    """The closed list of things that happen to jobs and, from `TICKED` on, to schedules."""

    PUBLISHED = "published"  # written by publishers of ours; jobs of other programs have none
    STARTED = "started"  # only written for runs that outlive one journal interval
    PROGRESS = "progress"
    LOG = "log"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    RETURNED = "returned"
    DEAD = "dead"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"  # written by the operator, and by the worker that drops the job or stops its run
    REPLAYED = "replayed"
    DROPPED = "dropped"
    RESTORED = "restored"
    LOST = "lost"  # the journal itself had to leave records out
    TICKED = "ticked"
    LATE = "late"  # a tick that was published well after its time
    MISFIRED = "misfired"  # ticks that were not published, or that another tick made up for
    OVERDUE = "overdue"  # no success within `expected_by`: an alarm
    RECOVERED = "recovered"  # a success after that alarm
    ACTIVATED = "activated"  # a scheduler became the active one
    CLOCK_JUMPED = "clock jumped"
    PAUSED = "paused"
    RESUMED = "resumed"
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"  # schedules were reread from their file
    UNSCHEDULED = "unscheduled"  # schedules exist, and no scheduler is active
    WORKER = "worker"  # how a worker is, every few seconds; `data["state"]` says starting, ready, draining or stopped
    SCHEDULER = "scheduler"  # the same of a scheduler: standby, active or stopped
    WEB = "web"  # the same of a web server: ready, behind or stopped
    ACTED = "acted"  # an operator did something to a queue, a worker or many jobs


@dataclass(slots=True)
class Event:
    """One record of the journal. For schedules, `job` is the tick's job and `data["schedule"]` the schedule's name.

    Args:
        kind: What happened.
        at: When, in UTC.
        job: Id of the job it happened to; empty for records about the journal itself.
        type: Its job type.
        queue: The work queue, without the prefix.
        attempt: Number of the run.
        data: Details of that kind of event: `seconds`, `reason`, `delay`, `done`/`total`/`note`, `message`, …
        source: The worker or operator that wrote it; taken from the batch when the record itself does not say.
    """

    kind: EventKind
    at: datetime
    job: str
    type: str
    queue: str = ""
    attempt: int = 0
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    source: str = ""
