"""Fetches ahead where jobs are short, and gives jobs back when that was too many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from rmqjobs.amqp.consuming import ConsumeLink
from rmqjobs.errors import BrokerError
from rmqjobs.execution.lanes import Lane
from rmqjobs.worker.case import Case

log = logging.getLogger("rmqjobs.worker")

LOOK_EVERY = 0.2  # seconds
AHEAD = 0.1  # seconds of work that is fetched beyond the slots' own
MOST = 800  # jobs that are fetched beyond the slots' own
TOO_FAR = 1.0  # seconds that a fetched job may have to wait for a slot

GiveBack = Callable[[Case], Awaitable[None]]


class Ahead:
    """Watches how fast each queue's jobs end.

    A worker that holds one job per slot waits for the broker after each job, for half a millisecond. That is nothing for jobs
    of a minute, but most of the time for jobs of a tenth of a millisecond. A worker that always held many jobs would keep long
    ones from idle workers.

    Args:
        consuming: Fetches jobs.
        lanes: Where each queue's jobs wait for a slot.
        give_back: Returns a job that has not started; waits for the broker as long as that takes.
        can_give_back: Whether the broker takes returned jobs now.
        shed: Gives back jobs that have left their lane and wait for a child process.
    """

    def __init__(
        self,
        consuming: ConsumeLink,
        lanes: Mapping[str, Lane[Case]],
        give_back: GiveBack,
        can_give_back: Callable[[], bool],
        shed: Callable[[], None],
    ) -> None:
        self._consuming, self._lanes = consuming, lanes
        self._give_back, self._can_give_back, self._shed = give_back, can_give_back, shed
        self._done: dict[str, int] = {}
        self._returning: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for queue in self._lanes:
                try:
                    if not self._stopped:
                        await self._look(queue)
                except BrokerError as error:
                    log.debug("cannot fetch ahead", extra={"queue": queue, "because": str(error)})
                except Exception:
                    log.exception("fetching ahead failed unexpectedly; it continues", extra={"queue": queue})

    async def stop(self, limit: timedelta) -> None:
        """Stops fetching and giving back; waits, within the limit, for jobs that are on their way back."""
        self._stopped = True
        if self._returning:
            await asyncio.wait(self._returning, timeout=limit.total_seconds())

    async def _look(self, queue: str) -> None:
        lease = self._consuming.lease(queue)
        if lease is None or lease.subscription.takes_turns:
            return
        done = lease.ended - lease.returned  # jobs that went back say nothing about the rate
        rate = (done - self._done.get(queue, 0)) / LOOK_EVERY
        self._done[queue] = done
        own, lane = lease.subscription.prefetch, self._lanes[queue]
        if not lease.ahead:
            wanted = min(int(rate * AHEAD), MOST)
            if wanted > own:
                await self._consuming.fetch_ahead(queue, wanted)
            return
        waiting = [case for case in lane.waiting if case.delivery.lease is lease]
        if len(waiting) > own and len(waiting) > rate * TOO_FAR and self._can_give_back():
            await self._consuming.fetch_ahead(queue, 0)
            kept = set(waiting[:own])
            surplus = lane.take(lambda case: case.delivery.lease is lease and case not in kept)
            self._shed()
            log.info("jobs take longer now: those fetched ahead go back", extra={"queue": queue, "jobs": len(surplus)})
            self._returning = {asyncio.create_task(self._return(case, lane)) for case in surplus}
            if self._returning:
                await asyncio.wait(self._returning)

    async def _return(self, case: Case, lane: Lane[Case]) -> None:
        try:
            await self._give_back(case)
        except Exception:
            log.exception("a job could not be given back; it waits here", extra={"job": case.job_id})
            if not case.delivery.lease.is_lost:
                lane.submit(case)
