"""The path of one job: decode, look up, validate, run, decide, settle, tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from rmqjobs.amqp.claims import Claims
from rmqjobs.amqp.leases import Delivery
from rmqjobs.errors import BrokerError, BrokerUnavailable, ChildDied, Interrupted, JobExpired, PublishedTwice
from rmqjobs.execution import Pools, Run
from rmqjobs.plugins import Registry
from rmqjobs.retry import DONE, Dead, DeadReason, RetryPolicy, Verdict, decide
from rmqjobs.wire.headers import REPLY_START
from rmqjobs.wire.jobs import Envelope, decode
from rmqjobs.worker.case import Case
from rmqjobs.worker.chronicle import Chronicle
from rmqjobs.worker.orders import Orders
from rmqjobs.worker.settlement import Settlement

log = logging.getLogger("rmqjobs.worker")

CLAIM_AGAIN = 0.1  # seconds until the next try while there is no connection
ORPHAN_FOR = 60.0  # seconds an ended run waits for its job to come back; after that, another worker has it
_NO_POLICY = RetryPolicy()  # for messages that never reach a handler; their verdicts do not depend on it


class JobPath:
    """Takes jobs from delivery to settlement.

    Args:
        registry: Handlers and hooks.
        pools: Where handlers run.
        orders: Knows cancelled jobs.
        claims: Decides which publication of a job runs, where there may be several.
        settlement: Publishes and acknowledges.
        chronicle: Writes to the journal and the log.
        max_body: Largest body in bytes.
        roll: Random numbers in [0, 1), for the jitter of retries.
        now: The time of day, aware.
    """

    def __init__(
        self,
        registry: Registry,
        pools: Pools,
        orders: Orders,
        claims: Claims,
        settlement: Settlement,
        chronicle: Chronicle,
        *,
        max_body: int,
        roll: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._registry, self._pools, self._orders, self._claims = registry, pools, orders, claims
        self._settlement, self._chronicle = settlement, chronicle
        self._max_body, self._roll, self._now = max_body, roll, now
        self.open: set[Case] = set()  # from their start until they are settled

    async def handle(self, case: Case) -> None:
        """Handles one job. Every failure on the way becomes an error value for `decide`; nothing is lost by raising."""
        self.open.add(case)
        try:
            case.result = await self._attempt(case)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a value from here on
            case.error = error
        await self.finish(case)

    async def finish(self, case: Case) -> None:
        """Decides and settles. It is called again for a job that ended after its channel was lost, and that has come back."""
        case.is_ending = True
        try:
            verdict = case.verdict = case.verdict or self._decide(case)
            settled = await self._settlement.settle(case, verdict)
        except Exception as error:
            log.exception("the verdict cannot be carried out; the job becomes a dead letter", extra={"job": case.job_id})
            case.error, case.verdict, case.unsent = error, Dead(DeadReason.MALFORMED), None
            settled = await self._settlement.bury(case, error)
        self._chronicle.tell(case, case.verdict, settled=settled)
        if settled:
            self.open.discard(case)
        else:
            case.is_ending = False
            case.forgetting = asyncio.get_running_loop().call_later(ORPHAN_FOR, self.open.discard, case)

    def running(self) -> Iterator[Run]:
        """Runs that have not ended."""
        return (case.running for case in self.open if case.running is not None)

    def orphan(self, delivery: Delivery) -> Case | None:
        """The case that this job has here already, when its channel was lost and the broker has delivered the job again."""
        return next((case for case in self.open if case.is_orphan_of(delivery)), None)

    async def _attempt(self, case: Case) -> object:
        """The handler's result; raises whatever goes wrong on the way to it."""
        envelope = case.envelope = decode(case.delivery, max_body=self._max_body)
        if self._orders.has_cancels:
            self._orders.refuse(envelope)
        handler = case.handler = self._registry.handler(envelope.job.type)
        if envelope.expires_at is not None and envelope.expires_at <= self._now():
            raise JobExpired(f"it had to start before {envelope.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        payload = handler.validate(envelope.body)
        if envelope.mark is not None:
            await self._claim(case, envelope)
        job = envelope.job
        job.queue, job.max_attempts, job.reporter = case.delivery.queue, handler.retry.max_attempts, self._chronicle.report
        run = case.run = Run(handler, payload, envelope.body, job)
        if REPLY_START in job.headers:
            self._settlement.answer_start(case.delivery, envelope)
        for hook in self._registry.before:
            hook(job=job, payload=payload)
        return await self._pools.run(run, isolated=case.isolated)

    async def _claim(self, case: Case, envelope: Envelope) -> None:
        """Makes sure that no other publication of this job has been started, nor ever will be.

        Raises:
            PublishedTwice: Another one has.
        """
        mark = envelope.mark or ""
        while not case.delivery.lease.is_lost:  # once it is lost, the job comes back, here or elsewhere
            try:
                if await self._claims.take(envelope.job.id, mark):
                    return
            except BrokerUnavailable:
                await asyncio.sleep(CLAIM_AGAIN)
            except BrokerError as error:  # running it twice is better than never
                log.warning("cannot claim; it may run twice", extra={"job": envelope.job.id, "because": str(error)})
                return
            else:
                raise PublishedTwice("this job was published twice, and the other one has already started")
        raise Interrupted("its channel was lost before it started")

    def _decide(self, case: Case) -> Verdict:
        verdict = DONE if case.error is None else self._decide_failure(case, case.error)
        if case.run is not None:
            for after in self._registry.after:
                _watch(after, job=case.run.job, error=case.error)
            for watcher in self._registry.verdict:
                _watch(watcher, job=case.run.job, verdict=verdict)
        return verdict

    def _decide_failure(self, case: Case, error: BaseException) -> Verdict:
        policy = case.handler.retry if case.handler else _NO_POLICY
        counters = case.counters_of_crash if isinstance(error, ChildDied) else case.counters
        return decide(policy, counters, error, roll=self._roll())


def _watch(hook: Callable[..., Any], **arguments: object) -> None:
    """Calls a hook that only watches: what it raises harms nobody."""
    try:
        hook(**arguments)
    except Exception:
        log.exception("a hook raised; its job is not affected")
