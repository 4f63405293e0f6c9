"""Reads the records of one job, from the place in the journal that its id tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rmqjobs.events import Event, EventKind
from rmqjobs.journal import follow
from rmqjobs.lifecycle import State, in_order, state_of
from rmqjobs.settings import Settings
from rmqjobs.wire.ids import made_at

# Records are written up to an interval late, and clocks of several machines differ.
MARGIN = timedelta(minutes=2)
LONGEST_KEPT = timedelta(days=30)  # an operator may let the journal keep more than seven days


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
        """Runs so far, since it was last replayed."""
        runs = 0
        for each in self.records:
            runs = 0 if each.kind is EventKind.REPLAYED else max(runs, each.attempt)
        return runs

    @property
    def because(self) -> str:
        """Why it ended as it did, where its latest record says so: the reason, and the error."""
        data = self.records[-1].data
        return ": ".join(str(data[name]) for name in ("reason", "error") if data.get(name))

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


async def find_all(settings: Settings, job_ids: Collection[str]) -> list[Life]:
    """The jobs with these whole ids, in one pass; those that nothing is known of have no records.

    Raises:
        BrokerError: The journal cannot be read.
    """
    found: dict[str, list[Event]] = {job_id: [] for job_id in job_ids}
    places = {_place_of(job_id) for job_id in job_ids}
    start = "first" if "first" in places else min(places)
    async for event in follow(settings, start=start, stop_at_end=True):
        if event.job in found:
            found[event.job].append(event)
    return [Life(job_id, in_order(records)) for job_id, records in found.items()]


async def changes(settings: Settings, job_id: str) -> AsyncGenerator[Life, None]:
    """A job's life as it is known now, and again whenever more is known, for ever. Nothing comes while nothing is known.

    Raises:
        BrokerError: The journal cannot be read.
    """
    began = datetime.now(UTC)
    (life,) = await find_all(settings, [job_id])
    async with aclosing(follow(settings, start=(began - MARGIN).isoformat(), about=job_id)) as newer:
        while True:
            if life.records:
                yield life
            known = len(life.records)
            while len(life.records) == known:  # what is read twice says nothing new
                event = await anext(newer)
                if event.job == job_id:
                    life = Life(job_id, in_order([*life.records, event]))


async def until_ended(settings: Settings, job_id: str) -> Life:
    """Waits until a job has ended, for as long as that takes; a replayed one has not.

    Raises:
        BrokerError: The journal cannot be read.
    """
    async with aclosing(changes(settings, job_id)) as lives:
        async for life in lives:
            if life.state(datetime.now(UTC)).is_end:
                return life
    raise AssertionError("a job changes for ever")


def _place_of(job_id: str) -> str:
    """Where to begin in the journal. An id that only looks like ours may have any time in it, even an impossible one."""
    made, now = made_at(job_id), datetime.now(UTC)
    return (made - MARGIN).isoformat() if made is not None and now - LONGEST_KEPT < made < now else "first"
