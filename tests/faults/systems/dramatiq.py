"""Dramatiq, one process of eight threads, configured not to lose jobs, as its own documentation advises.

Most of it is how Dramatiq always works ("Message Persistence" in "Advanced Topics"): durable queues, persistent messages, an
acknowledgement after the actor, retries with backoff, a dead-letter queue for what failed for good. `RabbitmqBroker` documents
the rest: `confirm_delivery`, with which a message that reached no queue is an error, too. It has no option for quorum queues
(the matrix makes them the virtual host's default, where RabbitMQ can), and none for how long a confirm may take.
"""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import dq_name, xq_name

from tests.faults.systems import program

QUEUE = f"{program.PREFIX}.dramatiq"
LIMITS = f"heartbeat={program.HEARTBEAT}&blocked_connection_timeout=5&socket_timeout=5&stack_timeout=5"  # pika's; seconds
broker = RabbitmqBroker(url=f"{program.URL}?{LIMITS}", confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def job(n: int) -> None:
    time.sleep(program.begin(n))
    program.finish(n)


def work() -> None:
    arguments = ["--processes=1", "--threads=8", "tests.faults.systems.dramatiq"]
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", *arguments])


def publish(n: int) -> None:
    job.send(n)


if __name__ == "__main__":
    program.main(work=work, publish=publish, waiting=[QUEUE, dq_name(QUEUE)], dead=[xq_name(QUEUE)])
