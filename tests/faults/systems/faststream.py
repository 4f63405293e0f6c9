"""FastStream for RabbitMQ, one process, configured not to lose jobs, as its own documentation advises.

From its pages about RabbitMQ: persistent, mandatory messages ("Publishing"), with an error for one that reached no queue; a
durable quorum queue with a dead-letter queue ("Queue Arguments"), both declared ("Queue/Exchange Declaration"); and, of the
policies in "Consuming Acknowledgements", `NACK_ON_ERROR`: a job is acknowledged after its handler and given back at once when
that fails, until the queue's delivery limit makes it a dead letter. It takes one broker URL and reconnects by itself.
"""

import asyncio
import functools
import logging
import os
import sys

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from tests.faults.systems import program
from tests.faults.systems.background import run

URL = f"{program.URL}?heartbeat={program.HEARTBEAT}"
LOGGER = logging.getLogger(__name__)  # a plain one: warnings and errors, on stderr
DEAD = RabbitQueue(f"{program.PREFIX}.faststream.dead", QueueType.QUORUM)
JOBS = RabbitQueue(
    f"{program.PREFIX}.faststream",
    QueueType.QUORUM,
    arguments={
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what that strategy asks for
    },
)

broker = RabbitBroker(
    URL,
    fail_fast=False,  # a worker that starts while RabbitMQ is down waits for it
    reconnect_interval=1,
    default_channel=Channel(prefetch_count=8, on_return_raises=True),
    ack_policy=AckPolicy.NACK_ON_ERROR,
    logger=LOGGER,
)
app = FastStream(broker, logger=LOGGER)


@broker.subscriber(JOBS)
async def job(n: int) -> None:
    await asyncio.sleep(program.begin(n))
    program.finish(n)


@app.after_startup
async def declare_dead_letters() -> None:
    await broker.declare_queue(DEAD)


def work() -> None:
    os.execv(sys.executable, [sys.executable, "-m", "faststream", "run", "tests.faults.systems.faststream:app"])


def publish(n: int) -> None:
    start_publisher()
    # FastStream's own `timeout` is for the confirm alone; ours is for the wait for a connection, too
    run(asyncio.wait_for(broker.publish(n, JOBS, persist=True), program.CONFIRM_SECONDS))


@functools.cache  # which keeps no exception: what failed is tried again
def start_publisher() -> None:
    run(broker.connect())
    run(broker.declare_queue(JOBS))


if __name__ == "__main__":
    program.main(work=work, publish=publish, waiting=[JOBS.name], dead=[DEAD.name])
