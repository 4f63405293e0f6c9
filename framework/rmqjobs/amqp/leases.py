"""Deliveries that are ours for a while: until they are acknowledged or given back, on the one channel that may do so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rmqjobs.amqp.connection import Channel

ACK_DELAY = 0.002  # seconds an acknowledgement waits for company


@dataclass(frozen=True, slots=True)
class Subscription:
    """One queue to consume from.

    Args:
        queue: Work queue, without the prefix.
        name: Its full name.
        prefetch: The most unacknowledged deliveries at once.
        arguments: Arguments of the consumer.
        takes_turns: Only one of the queue's consumers gets jobs at a time.
    """

    queue: str
    name: str
    prefetch: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    takes_turns: bool = False


class Lease:
    """One life of a consumer's channel; gathers acknowledgements and sends them together."""

    def __init__(self, channel: Channel, subscription: Subscription, loop: asyncio.AbstractEventLoop) -> None:
        self.subscription = subscription
        self._channel, self._loop = channel, loop
        self._lowest = 1  # the first tag that is not settled
        self._beginning = 0  # the last tag before it that is to be acknowledged, with all before it; 0 for none
        self._settled: set[int] = set()  # settled tags beyond the lowest
        self._stragglers: list[int] = []  # those of them that are to be acknowledged
        self._gathered = 0  # acknowledgements that have not been sent
        self._timer: asyncio.TimerHandle | None = None
        self.taken = 0  # deliveries so far
        self.ended = 0  # how many of them are settled or given back
        self.returned = 0  # how many of those were given back
        self.fetches(ahead=0)

    def fetches(self, *, ahead: int) -> None:
        """Sets how many are fetched beyond the prefetch at most. Acknowledgements are sent once half of all have gathered."""
        self.ahead = ahead
        self._burst = max((self.subscription.prefetch + ahead) // 2, 1)

    @property
    def is_lost(self) -> bool:
        """Whether its deliveries belong to somebody else now."""
        return not self._channel.is_open

    @property
    def is_idle(self) -> bool:
        """Whether none of its deliveries is open."""
        return self.taken == self.ended

    def ack(self, tag: int) -> None:
        """Acknowledges soon."""
        self.ended += 1
        if tag == self._lowest:  # most jobs end in the order they came
            self._lowest, self._beginning = tag + 1, tag
        else:
            self._settled.add(tag)
            self._stragglers.append(tag)
        self._gathered += 1
        if self._gathered >= self._burst:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(ACK_DELAY, self.flush)

    def give_back(self, tag: int, *, requeue: bool = True) -> None:
        """Returns a delivery to its queue, or has the broker make a dead letter of it."""
        self.ended += 1
        self.returned += 1
        self._settled.add(tag)
        if not self.is_lost:
            self._channel.raw.basic_nack(tag, requeue=requeue)

    def flush(self) -> None:
        """Sends the gathered acknowledgements: one for the finished beginning, the rest singly."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._lowest in self._settled:
            self._settled.discard(self._lowest)
            self._lowest += 1
        # The tag of a `multiple` ack must itself be open: a tag acknowledged before would close the channel.
        beginning = max((tag for tag in self._stragglers if tag < self._lowest), default=0)
        beginning = max(beginning, self._beginning)
        if not self.is_lost:
            if beginning:
                self._channel.raw.basic_ack(beginning, multiple=True)
            for tag in self._stragglers:
                if tag > self._lowest:
                    self._channel.raw.basic_ack(tag)
        self._beginning = self._gathered = 0
        self._stragglers.clear()


@dataclass(slots=True, eq=False)
class Delivery:
    """A message that is ours until it is acknowledged, given back, or its lease is lost."""

    lease: Lease
    queue: str  # the work queue it came from, without the prefix
    tag: int
    body: bytes
    routing_key: str
    redelivered: bool
    properties: Any

    @property
    def returns(self) -> int:
        """How often the broker got it back, by its own count."""
        count = (self.properties.headers or {}).get("x-delivery-count")
        return count if isinstance(count, int) else 0

    def ack(self) -> None:
        """Acknowledges it; has no effect when the lease is lost."""
        self.lease.ack(self.tag)

    def ack_returned(self) -> None:
        """Acknowledges it because it went back to its queue as another message."""
        self.lease.returned += 1
        self.lease.ack(self.tag)

    def give_back(self) -> None:
        """Returns it to its queue; has no effect when the lease is lost."""
        self.lease.give_back(self.tag)

    def bury(self) -> None:
        """Has the broker make a dead letter of it, as it is; has no effect when the lease is lost."""
        self.lease.give_back(self.tag, requeue=False)
