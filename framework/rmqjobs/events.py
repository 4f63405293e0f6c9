"""What happened to a job, as the journal records it. Floor 2: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue


class EventKind(StrEnum):
    """The closed list of things that happen to a job."""

    STARTED = "started"  # only written for runs that outlive one journal interval
    PROGRESS = "progress"
    LOG = "log"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    RETURNED = "returned"
    DEAD = "dead"
    SKIPPED = "skipped"
    REPLAYED = "replayed"
    DROPPED = "dropped"
    RESTORED = "restored"
    LOST = "lost"  # the journal itself had to leave records out


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the journal.

    Args:
        kind: What happened.
        at: When, in UTC.
        job_id: To which job; empty for records about the journal itself.
        job_type: Its type.
        queue: The work queue, without the prefix.
        attempt: Number of the run.
        data: What belongs to the kind: `seconds`, `reason`, `delay`, `done`/`total`/`note`, `message`, …
        source: The worker or the operator it comes from.
    """

    kind: EventKind
    at: datetime
    job_id: str
    job_type: str
    queue: str = ""
    attempt: int = 0
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    source: str = ""
