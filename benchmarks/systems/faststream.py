"""FastStream for RabbitMQ: a quorum queue, persistent confirmed messages, acknowledgement after the handler."""

from __future__ import annotations

import logging
import os
import sys

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.systems import program
from benchmarks.systems.payload import Add

LEDGER = program.ledger() if "BENCH_LEDGER" in os.environ else None
LOGGER = logging.getLogger(__name__)  # a plain one: warnings and errors; its own would log every message
QUEUE = RabbitQueue(f"{program.PREFIX}.faststream", QueueType.QUORUM)
broker = RabbitBroker(program.URL, default_channel=Channel(prefetch_count=program.PREFETCH), logger=LOGGER)
app = FastStream(broker, logger=LOGGER)


async def add(payload: Add) -> int:
    """The job."""
    assert LEDGER is not None
    LEDGER.started(payload.x)
    return payload.x + payload.y


def add_in_thread(payload: Add) -> int:
    """The job, which FastStream runs in a thread."""
    assert LEDGER is not None
    LEDGER.started(payload.x)
    return payload.x + payload.y


broker.subscriber(QUEUE, ack_policy=AckPolicy.NACK_ON_ERROR)(add_in_thread if program.POOL == "thread" else add)


def work() -> None:
    """The worker's command line; this process becomes it."""
    options = [f"--workers={program.PROCESSES}"] if program.PROCESSES > 1 else []
    command = [sys.executable, "-m", "faststream", "run", "benchmarks.systems.faststream:app", *options]
    os.execv(sys.executable, command)


async def connect() -> None:
    """Connects, and declares the queue."""
    await broker.connect()
    await broker.declare_queue(QUEUE)


async def publish(n: int) -> None:
    """One, confirmed."""
    await broker.publish(Add(x=n), QUEUE, persist=True)


if __name__ == "__main__":
    program.main(work=work, publish=publish, many=lambda numbers: program.in_windows(numbers, publish), connect=connect)
