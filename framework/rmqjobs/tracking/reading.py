"""Reads the records of one job, from the place in the journal that its id tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rmqjobs.events import Event
from rmqjobs.journal import follow
from rmqjobs.lifecycle import State, in_order, state_of
from rmqjobs.settings import Settings
from rmqjobs.wire.jobs import made_at

# Records are written up to an interval late, and clocks of several machines differ.
MARGIN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of one job.

    Args:
        id: The job's id.
        records: Everything the journal has about it, in order.
    """

    id: str
    records: Sequence[Event]

    @property
    def type(self) -> str:
        """Its job type."""
        return next((each.type for each in self.records if each.type), "")

    @property
    def queue(self) -> str:
        """The work queue it was last seen in, without the prefix; empty until a worker has had it."""
        return next((each.queue for each in reversed(self.records) if each.queue), "")

    @property
    def attempts(self) -> int:
        """Runs so far."""
        return max((each.attempt for each in self.records), default=0)

    def state(self, now: datetime) -> State:
        """Where it is."""
        state = state_of(self.records, now)
        assert state is not None  # noqa: S101 - there is no life without records
        return state


async def find(settings: Settings, beginning: str) -> list[Life]:
    """The jobs whose id begins like this; a whole id is found fastest, because it tells where to start reading.

    Raises:
        BrokerError: The journal cannot be read.
    """
    found: dict[str, list[Event]] = {}
    async for event in follow(settings, start=_place_of(beginning), stop_at_end=True, about=beginning):
        found.setdefault(event.job, []).append(event)
    lives = (Life(job_id, in_order(records)) for job_id, records in found.items())
    return [life for life in lives if life.records]


async def watch(settings: Settings, job_id: str) -> AsyncIterator[Life]:
    """One job, again with each new record; first with what is known so far. Never ends by itself."""
    records: list[Event] = []
    async for event in follow(settings, start=_place_of(job_id), about=job_id):
        if event.job == job_id:
            records = in_order([*records, event])
            if records:
                yield Life(job_id, records)


def _place_of(job_id: str) -> str:
    made = made_at(job_id)
    return (made - MARGIN).isoformat() if made is not None else "first"
