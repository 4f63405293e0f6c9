"""Where deliveries go: to the lane of their pool, to the run that their job has here already, or to run alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from rmqjobs.amqp.leases import Delivery, Lease
from rmqjobs.errors import Interrupted
from rmqjobs.execution import HELD_BY_A_CHILD
from rmqjobs.execution.lanes import Lane
from rmqjobs.job import Handler, Pool
from rmqjobs.worker.case import Case
from rmqjobs.worker.path import JobPath

log = logging.getLogger("rmqjobs.worker")

# The most jobs per slot that have left their lane: a child holds the next ones while it runs one.
DEPTHS = {Pool.ASYNC: 1, Pool.THREAD: 1, Pool.PROCESS: HELD_BY_A_CHILD}
SUSPECT_AFTER = 2  # times the broker got a job back, after which it runs alone in a child process


class Intake:
    """The lanes of a worker.

    Args:
        path: What a job goes through when it has a slot.
        handlers: Those that are served; they tell the pool of each queue.
        slots: Jobs that run at once in each pool.
    """

    def __init__(self, path: JobPath, handlers: Iterable[Handler], slots: Mapping[Pool, int]) -> None:
        self._path = path
        self._lanes = {pool: Lane(count * DEPTHS[pool], path.handle) for pool, count in slots.items()}
        self._suspects = Lane(1, path.handle)
        self._orphans = Lane(slots[Pool.ASYNC], path.finish)  # ended while their channel was lost, and came back
        self._pool_of_queue = {handler.queue: handler.pool for handler in handlers}
        self.lane_of_queue = {queue: self._lanes[pool] for queue, pool in self._pool_of_queue.items()}

    @property
    def running(self) -> int:
        """Jobs between their start and their settlement."""
        return self._orphans.running + sum(lane.running for lane in self._starting())

    def runs_in_children(self, queue: str) -> bool:
        """Whether the queue's jobs may wait at a child process after they have left their lane."""
        return self._pool_of_queue[queue] is Pool.PROCESS

    def take(self, delivery: Delivery) -> None:
        """Takes a delivery."""
        if not delivery.redelivered:
            self.lane_of_queue[delivery.queue].submit(Case(delivery))
        elif (orphan := self._path.orphan(delivery)) is not None:
            self._take_back(orphan, delivery)
        elif delivery.returns >= SUSPECT_AFTER:
            case = Case(delivery, isolated=True)
            log.warning("suspect runs alone", extra={"job": case.job_id, "type": case.job_type, "queue": delivery.queue})
            self._suspects.submit(case)
        else:
            self.lane_of_queue[delivery.queue].submit(Case(delivery))

    def take_out(self, queue: str | None = None) -> list[Case]:
        """The jobs that have not started, of one queue or of all, to be given back."""
        lanes = self._starting()
        return [case for lane in lanes for case in lane.take(lambda case: queue in (None, case.delivery.queue))]

    def let_go(self, lease: Lease) -> None:
        """Lets go of the deliveries of a lost lease: the broker delivers them again."""
        for lane in self._starting():
            lane.take(lambda case: case.delivery.lease is lease)
        for case in list(self._path.open):
            if case.delivery.lease is lease and case.handler and case.handler.singleton and case.run:
                case.run.stop(Interrupted("the connection that held this singleton's lock is lost"))

    def _take_back(self, orphan: Case, delivery: Delivery) -> None:
        """The channel was lost and its job came back here: the run goes on, and is settled on the new delivery."""
        log.info("a run keeps its job", extra={"job": orphan.job_id, "type": orphan.job_type, "queue": delivery.queue})
        orphan.delivery = delivery
        if orphan.forgetting is not None:
            orphan.forgetting.cancel()
        if orphan.verdict is not None and not orphan.is_ending:
            orphan.is_ending = True
            self._orphans.submit(orphan)

    def _starting(self) -> list[Lane[Case]]:
        return [*self._lanes.values(), self._suspects]
