"""The path of one job: decode, look up, validate, run, decide, settle, tell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from types import MappingProxyType
from typing import Any

from rmqjobs.amqp.consuming import Delivery
from rmqjobs.errors import ChildDied, JobExpired
from rmqjobs.execution import Pools, Run
from rmqjobs.job import Handler, Job
from rmqjobs.plugins import Registry
from rmqjobs.retry import RetryPolicy, Verdict, decide
from rmqjobs.wire.headers import REPLY_START
from rmqjobs.wire.jobs import Envelope, decode
from rmqjobs.worker.case import Case
from rmqjobs.worker.chronicle import Chronicle
from rmqjobs.worker.settlement import Settlement

log = logging.getLogger("rmqjobs.worker")

ORPHAN_FOR = 60.0  # seconds an ended run waits for its job to come back: longer, and another worker has it
_NO_POLICY = RetryPolicy()  # of messages that never reach a handler; their verdicts do not depend on it


class JobPath:
    """Takes jobs from delivery to settlement.

    Args:
        registry: Handlers and hooks.
        pools: Where handlers run.
        settlement: Publishes and acknowledges.
        chronicle: Tells the journal and the log.
        max_body: Largest body in bytes.
        roll: Random numbers in [0, 1), for the jitter of retries.
        now: The time of day, aware.
    """

    def __init__(
        self,
        registry: Registry,
        pools: Pools,
        settlement: Settlement,
        chronicle: Chronicle,
        *,
        max_body: int,
        roll: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._registry, self._pools, self._settlement, self._chronicle = registry, pools, settlement, chronicle
        self._max_body, self._roll, self._now = max_body, roll, now
        self.open: set[Case] = set()  # from their start until they are settled

    async def handle(self, case: Case) -> None:
        """One job. Every failure on the way is an error value for `decide`; nothing is lost by raising."""
        self.open.add(case)
        try:
            case.result = await self._attempt(case)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a value from here on
            case.error = error
        await self.finish(case)

    async def finish(self, case: Case) -> None:
        """Decides and settles; again for a job that had ended when its channel was lost, and has come back."""
        settled = case.is_ending = True
        try:
            verdict = case.verdict = case.verdict or self._decide(case)
            settled = await self._settlement.settle(case, verdict)
        except Exception as error:
            log.exception("settling failed in an unforeseen way; the job dies", extra={"job": case.job_id})
            await self._settlement.bury_plainly(case, error)
        else:
            self._chronicle.tell(case, verdict, settled=settled)
        if settled:
            self.open.discard(case)
        else:
            case.is_ending = False
            case.forgetting = asyncio.get_running_loop().call_later(ORPHAN_FOR, self.open.discard, case)

    def orphan(self, delivery: Delivery) -> Case | None:
        """The run this job has here already, when its channel was lost and the broker handed it out again."""
        return next((case for case in self.open if case.is_orphan_of(delivery)), None)

    async def _attempt(self, case: Case) -> object:
        """The handler's result; raises whatever goes wrong on the way to it."""
        envelope = case.envelope = decode(case.delivery, max_body=self._max_body)
        handler = case.handler = self._registry.handler(envelope.type)
        if envelope.expires_at is not None and envelope.expires_at <= self._now():
            raise JobExpired(f"it had to start before {envelope.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        payload = handler.validate(envelope.body)
        run = case.run = Run(handler, payload, envelope.body, self._job(case, envelope, handler))
        if REPLY_START in envelope.headers:
            self._settlement.answer_start(case.delivery, envelope)
        case.began, case.is_running = time.monotonic(), True
        try:
            for hook in self._registry.before:
                hook(job=run.job, payload=payload)
            return await self._pools.run(run, isolated=case.isolated)
        finally:
            case.is_running = False
            case.seconds = time.monotonic() - case.began
            envelope.state = run.job.state

    def _decide(self, case: Case) -> Verdict:
        policy = case.handler.retry if case.handler else _NO_POLICY
        counters = case.counters_of_crash if isinstance(case.error, ChildDied) else case.counters
        verdict = decide(policy, counters, case.error, roll=self._roll())
        if case.run is not None:
            for after in self._registry.after:
                _watch(after, job=case.run.job, error=case.error)
            for watcher in self._registry.verdict:
                _watch(watcher, job=case.run.job, verdict=verdict)
        return verdict

    def _job(self, case: Case, envelope: Envelope, handler: Handler) -> Job:
        return Job(
            id=envelope.id,
            type=envelope.type,
            attempt=envelope.counters.attempt,
            max_attempts=handler.retry.max_attempts,
            queue=case.delivery.queue,
            published_at=envelope.published_at,
            schedule=envelope.schedule,
            scheduled_for=envelope.scheduled_for,
            period_start=envelope.period_start,
            correlation_id=case.delivery.properties.correlation_id,
            headers=MappingProxyType(envelope.headers) if envelope.headers else envelope.headers,
            state=envelope.state,
            reporter=self._chronicle.report,
        )


def _watch(hook: Callable[..., Any], **arguments: object) -> None:
    """Calls a hook that only watches: what it raises harms nobody."""
    try:
        hook(**arguments)
    except Exception:
        log.exception("a hook raised; its job is not affected")
