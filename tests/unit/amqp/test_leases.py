"""Acknowledgements go together, and never twice."""

import asyncio
import random
from typing import Any

import pytest

from rmqjobs.amqp.leases import Lease, Subscription


class FakeBroker:
    """Counts as RabbitMQ does: acknowledging a tag that is not open closes the channel."""

    def __init__(self, tags: int) -> None:
        self.open = set(range(1, tags + 1))
        self.is_open = True
        self.sent = 0
        self.raw = self

    def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
        assert tag in self.open, f"unknown delivery tag {tag}"
        self.sent += 1
        self.open -= {other for other in self.open if other <= tag} if multiple else {tag}

    def basic_nack(self, tag: int, *, requeue: bool) -> None:
        assert requeue
        self.open.remove(tag)


def a_lease(broker: Any, prefetch: int = 100) -> Lease:
    return Lease(broker, Subscription("q", "p.q", prefetch), asyncio.get_running_loop())


async def test_finished_jobs_in_order_are_one_acknowledgement() -> None:
    broker = FakeBroker(40)
    lease = a_lease(broker)
    for tag in range(1, 41):
        lease.ack(tag)
    lease.flush()
    assert (broker.open, broker.sent) == (set(), 1)


async def test_a_slow_job_holds_nobody_up() -> None:
    broker = FakeBroker(5)
    lease = a_lease(broker)
    for tag in (2, 3, 5):
        lease.ack(tag)
    lease.flush()
    assert broker.open == {1, 4}
    lease.ack(1)
    lease.flush()
    assert broker.open == {4}
    lease.ack(4)
    lease.flush()
    assert broker.open == set()


async def test_half_a_prefetch_is_sent_at_once_and_the_rest_soon() -> None:
    broker = FakeBroker(6)
    lease = a_lease(broker, prefetch=10)
    for tag in range(1, 6):
        lease.ack(tag)
    assert broker.open == {6}
    lease.ack(6)
    await asyncio.sleep(0.05)
    assert broker.open == set()


async def test_a_lost_lease_acknowledges_nothing() -> None:
    broker = FakeBroker(3)
    lease = a_lease(broker)
    lease.ack(1)
    broker.is_open = False
    lease.flush()
    lease.ack(2)
    lease.give_back(3)
    await asyncio.sleep(0.02)
    assert (lease.is_lost, broker.sent, broker.open) == (True, 0, {1, 2, 3})


@pytest.mark.parametrize("seed", range(50))
async def test_whatever_the_order_every_tag_is_settled_exactly_once(seed: int) -> None:
    chance = random.Random(seed)
    broker = FakeBroker(200)
    lease = a_lease(broker, prefetch=chance.choice([2, 10, 100, 400]))
    tags = list(range(1, 201))
    chance.shuffle(tags)
    for tag in tags:
        (lease.give_back if chance.random() < 0.1 else lease.ack)(tag)
        if chance.random() < 0.2:
            lease.flush()
    lease.flush()
    assert broker.open == set()
