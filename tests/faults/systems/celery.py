"""Celery with the prefork pool, four processes, configured not to lose jobs, as its own documentation advises.

From "Using RabbitMQ": quorum queues, and a topic exchange for delayed delivery. From "Configuration and defaults" and kombu's
pyamqp transport: publisher confirms, late acknowledgement, a task given back when its process dies or the connection is lost,
one prefetched task per process, reconnecting without end. A task that failed every retry is rejected into
a dead-letter queue. Gossip, mingle and remote control are off: they protect nothing, and their queues would lack our prefix.
"""

import os
import sys
import time

from celery import Celery, bootsteps
from celery.worker.consumer import Consumer
from kombu import Exchange, Queue
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE, level_name

from tests.faults.systems import program

MODULE = "tests.faults.systems.celery"
RETRIES = [level_name(level) for level in range(MAX_NUMBER_OF_BITS_TO_USE)]
DEAD = Queue(f"{program.PREFIX}.celery.dead", queue_arguments={"x-queue-type": "quorum"})
JOBS = Queue(
    f"{program.PREFIX}.celery",
    Exchange(f"{program.PREFIX}.celery", type="topic"),  # which delayed delivery, so a retry, needs
    routing_key=f"{program.PREFIX}.celery",  # by which alone a delayed task finds its way back, so nobody else's
    queue_arguments={
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what that strategy asks for
    },
)

app = Celery(MODULE)
app.conf.update(
    broker_url=program.URL,
    broker_heartbeat=program.HEARTBEAT,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"confirm_publish": True},
    task_queues=[JOBS],
    task_default_queue=JOBS.name,
    task_default_exchange=JOBS.exchange.name,
    task_default_exchange_type="topic",
    task_default_routing_key=JOBS.routing_key,
    task_ignore_result=True,
    task_acks_late=True,
    task_acks_on_failure=False,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_enable_remote_control=False,
)


class DeadLetters(bootsteps.StartStopStep):
    """Declares the queue of failed jobs whenever the worker has connected: Celery itself declares what it consumes."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Consumer) -> None:
        DEAD(parent.connection.default_channel).declare()


app.steps["consumer"].add(DeadLetters)


@app.task(autoretry_for=(Exception,), retry_backoff=True, max_retries=20)
def job(n: int) -> None:
    time.sleep(program.begin(n))
    program.finish(n)


def work() -> None:
    options = ["--pool=prefork", "--concurrency=4", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
    os.execv(sys.executable, [sys.executable, "-m", "celery", "--quiet", f"--app={MODULE}", "worker", *options])


def publish(n: int) -> None:
    job.apply_async((n,), mandatory=True, confirm_timeout=program.CONFIRM_SECONDS)


if __name__ == "__main__":
    program.main(work=work, publish=publish, waiting=[JOBS.name, *RETRIES], dead=[DEAD.name])
