"""Settles a job: publishes what its verdict asks for, waits for the confirm, and only then acknowledges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar, assert_never

from rmqjobs.amqp.leases import Delivery
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.errors import BrokerBlocked, BrokerGone, InvalidJob, PublishTimeout, RmqJobsError
from rmqjobs.failures import Failure, failure_of
from rmqjobs.plugins import Registry
from rmqjobs.retry import Cancelled, Counters, Dead, DeadReason, Done, RetryIn, Returned, Skipped, Snoozed, Verdict
from rmqjobs.topology import Names
from rmqjobs.wire import deadletters
from rmqjobs.wire.jobs import Envelope, Message, Reply, again, kept_headers, reply, resend, smaller
from rmqjobs.worker.case import Case

log = logging.getLogger("rmqjobs.worker")

_PASSING = (BrokerGone, BrokerBlocked, PublishTimeout)
_PAUSE = 1.0  # seconds between tries to publish what a verdict asks for
KnownT = TypeVar("KnownT")


class Settlement:
    """Turns verdicts into messages and acknowledgements.

    Args:
        link: Publishes.
        names: Names of exchanges and queues.
        registry: Knows the plugin's version, for dead letters.
        worker: Name of this worker, for dead letters.
        timeout: Deadline of one try to publish.
        max_body: Largest body in bytes; a larger result is left out of its reply.
        now: The time of day, aware.
    """

    def __init__(
        self,
        link: PublishLink,
        names: Names,
        registry: Registry,
        *,
        worker: str,
        timeout: timedelta,
        max_body: int,
        now: Callable[[], datetime],
    ) -> None:
        self._link, self._names, self._registry = link, names, registry
        self._worker, self._timeout, self._max_body, self._now = worker, timeout, max_body, now

    async def settle(self, case: Case, verdict: Verdict) -> bool:
        """Settles a job; returns whether it is settled. If not, its lease is lost and the broker delivers it again.

        Raises:
            InvalidJob: What the verdict asks for cannot be published, whatever is left out.
        """
        if case.unsent is None:
            case.unsent = self._messages(case, verdict)
        while case.unsent:
            if not await self._publish(case.unsent[0], case):
                return False
            del case.unsent[0]
        case.delivery.ack()
        return not case.delivery.lease.is_lost

    def answer_start(self, delivery: Delivery, envelope: Envelope) -> None:
        """Tells whoever asked that a run starts, without waiting for the confirm: nothing depends on it."""
        if delivery.properties.reply_to:
            answer = reply(delivery, envelope, "started", None, max_body=self._max_body)
            self._link.send(answer, self._timeout, lambda _error: None)

    async def give_back(self, case: Case, *, by_nack: bool) -> None:
        """Returns a job that has not started; without `by_nack` as a new message, so that no return is counted."""
        delivery = case.delivery
        if by_nack:
            delivery.give_back()
            return
        queue, properties = self._names.queue(delivery.queue), delivery.properties
        headers = kept_headers(delivery)
        message = resend(delivery, "", queue, headers, job_id=properties.message_id, kind=properties.type)
        if await self._publish(message, case):
            delivery.ack_returned()

    async def bury(self, case: Case, error: Exception) -> bool:
        """The last resort: a job whose verdict cannot be carried out becomes a dead letter. Returns the same as `settle`."""
        failure = failure_of(error)
        failure = replace(failure, message=f"its verdict could not be carried out: {failure.message}")
        try:
            if not await self._publish(self._dead_letter(case, DeadReason.MALFORMED, failure), case):
                return False
        except InvalidJob:  # too large to be published again: the broker moves it itself
            case.delivery.bury()
        else:
            case.delivery.ack()
        return not case.delivery.lease.is_lost

    def _messages(self, case: Case, verdict: Verdict) -> list[Message]:
        """What must be in RabbitMQ before the delivery is acknowledged: first the job's next message, then a reply."""
        replies = self._replies(case, verdict) if case.delivery.properties.reply_to else []
        match verdict:
            case Done() | Skipped() | Cancelled():
                return replies
            case RetryIn(delay, counters):
                return [self._again(case, counters, delay, failed=True)]
            case Snoozed(until, delay):
                wait = until - self._now() if until else delay
                return [self._again(case, case.counters, wait or timedelta(0))]
            case Returned():
                return [self._again(case, case.counters, timedelta(0))]
            case Dead():
                return [self._dead_letter(case, verdict.reason, failure_of(_known(case.error))), *replies]
            case _:
                assert_never(verdict)

    def _again(self, case: Case, counters: Counters, delay: timedelta, *, failed: bool = False) -> Message:
        delivery, envelope = case.delivery, _known(case.envelope)
        return again(
            self._names,
            delivery,
            envelope,
            counters=counters,
            delay=delay,
            queue=delivery.queue,
            now=self._now(),
            failed=failed,
        )

    def _dead_letter(self, case: Case, reason: DeadReason, failure: Failure) -> Message:
        cause = deadletters.Cause(
            reason=reason,
            failure=failure,
            attempts=case.counters.attempt if case.run else case.counters.attempt - 1,
            queue=case.delivery.queue,
            worker=self._worker,
            plugin_version=self._registry.version_of(case.handler.plugin) if case.handler else "",
        )
        return deadletters.bury(self._names, case.delivery, cause, job_id=case.job_id, failed_at=self._now())

    def _replies(self, case: Case, verdict: Verdict) -> list[Message]:
        if case.envelope is None:
            return []
        match verdict:
            case Done():
                return [reply(case.delivery, case.envelope, "done", case.result, max_body=self._max_body)]
            case Dead(reason):
                return [self._given_up(case.delivery, case.envelope, reason.value)]
            case Cancelled():
                return [self._given_up(case.delivery, case.envelope, "cancelled")]
            case _:
                return []

    def _given_up(self, delivery: Delivery, envelope: Envelope, reason: str) -> Message:
        return reply(delivery, envelope, "dead", {"reason": reason}, max_body=self._max_body)

    async def _publish(self, message: Message, case: Case) -> bool:
        """Publishes until confirmed; gives up only when the job is no longer ours to settle.

        A reply is tried only until the broker refuses it: perhaps nobody waits for it any more.

        Raises:
            InvalidJob: It cannot be published, whatever is left out.
        """
        while not case.delivery.lease.is_lost:  # it may have come back here meanwhile, as another delivery
            try:
                await self._link.publish(message, self._timeout)
            except RmqJobsError as error:
                less = smaller(message) if isinstance(error, InvalidJob) else None
                if less is not None:
                    log.warning("part of a message is left out", extra={"job": case.job_id, "because": str(error)})
                    message = less
                elif isinstance(message, Reply) and not isinstance(error, _PASSING):
                    log.warning("reply not delivered", extra={"to": message.routing_key, "because": str(error)})
                    return True
                elif isinstance(error, InvalidJob):
                    raise
                else:
                    log.warning("cannot settle yet", extra={"job": case.job_id, "because": str(error)})
                    await asyncio.sleep(_PAUSE)
            else:
                return True
        return False


def _known(value: KnownT | None) -> KnownT:
    """A part that every case with this verdict has: only a decoded job runs again, only an error kills."""
    if value is None:
        raise AssertionError("a verdict without what it is about")
    return value
