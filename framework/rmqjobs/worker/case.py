"""One delivery on its way through the worker; fields that are not known yet are None."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rmqjobs.amqp.leases import Delivery
from rmqjobs.execution import Run
from rmqjobs.job import Handler
from rmqjobs.retry import Counters, Verdict
from rmqjobs.wire.ids import new_job_id
from rmqjobs.wire.jobs import Envelope, Message, is_same, job_type, text_of


@dataclass(slots=True, eq=False)
class Case:
    """One delivery.

    Args:
        delivery: The message, and the right to settle it. It is replaced if its channel was lost and the job came back here.
        isolated: Whether it is a suspect: workers died while they had it, so it runs alone in a child process.
        envelope: The message taken apart; None when it is malformed.
        handler: Who handles its type.
        run: Its run.
        result: What the handler returned.
        error: What went wrong.
        verdict: What was decided.
        is_ending: Whether it is being settled, or waits for that.
        unsent: Messages that must be in RabbitMQ before the delivery is acknowledged; None until they are made.
        forgetting: The timer by which it is forgotten, if its channel was lost.
        announced: Whether its start is in the journal.
    """

    delivery: Delivery
    isolated: bool = False
    envelope: Envelope | None = None
    handler: Handler | None = None
    run: Run | None = None
    result: object = None
    error: BaseException | None = None
    verdict: Verdict | None = None
    is_ending: bool = False
    unsent: list[Message] | None = None
    forgetting: asyncio.TimerHandle | None = None
    announced: bool = False
    _id: str = ""

    def is_orphan_of(self, delivery: Delivery) -> bool:
        """Whether this is the same message, which the broker handed out before on a channel that is gone."""
        return self.delivery.lease.is_lost and is_same(self.delivery, delivery)

    @property
    def running(self) -> Run | None:
        """Its run, while that has not ended."""
        return self.run if self.verdict is None else None

    @property
    def job_id(self) -> str:
        """The job's id; a malformed message without one gets one here."""
        if self.envelope is not None:
            return self.envelope.job.id
        self._id = self._id or text_of(self.delivery.properties.message_id or new_job_id())
        return self._id

    @property
    def job_type(self) -> str:
        """The job's type, as far as the message tells."""
        return self.envelope.job.type if self.envelope is not None else job_type(self.delivery)

    @property
    def counters(self) -> Counters:
        """The counters as received."""
        return self.envelope.counters if self.envelope else Counters()

    @property
    def counters_of_crash(self) -> Counters:
        """The counters as received; for a suspect whose own process died under it, with the broker's returns as crashes."""
        received = self.counters
        returns = self.delivery.returns if self.isolated else 0
        return Counters(received.attempt, received.crashes + returns, received.unhandled)
