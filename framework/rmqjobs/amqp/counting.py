"""Counts what is in a queue, and does not take a busy broker's word that there is nothing.

RabbitMQ waits a quarter of a second for the leader of a quorum queue and then answers that the queue is empty, as seen on 3.10
and 4.3 with a suspended leader. So we ask again when it took that long to answer that there is nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from rmqjobs.amqp.connection import Channel

SUSPICIOUS = 0.2  # seconds; RabbitMQ gives up after 0.25
PATIENCE = 10.0
AGAIN = 0.2


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in a queue.

    Args:
        messages: Ready ones.
        consumers: Of a queue with a single active consumer, the active one only.
        certain: False when the leader did not answer; it may hold any number then.
    """

    messages: int
    consumers: int
    certain: bool


async def count(channel: Channel, queue: str) -> Counts:
    """Counts the ready messages and the consumers of a queue; waits up to ten seconds for a leader that is busy.

    Raises:
        BrokerError: There is no such queue, or the user may not look at it; the channel is closed then.
    """
    end = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        answer = await channel.call("queue_declare", queue=queue, passive=True)
        certain = bool(answer.message_count or answer.consumer_count) or time.monotonic() - asked < SUSPICIOUS
        if certain or time.monotonic() > end:
            return Counts(answer.message_count, answer.consumer_count, certain)
        await asyncio.sleep(AGAIN)
