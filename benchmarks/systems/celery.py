"""Celery on RabbitMQ: a durable quorum queue, late acknowledgement, publisher confirms; nothing that it can do without.

BENCH_POOL `process` is prefork, Celery's default, with as many children as the other systems have; `async` is prefork with
one child, `thread` its threads.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from datetime import timedelta

from celery import Celery
from kombu import Queue

from benchmarks.systems import program
from benchmarks.systems.payload import Add

QUEUE = f"{program.PREFIX}.celery"
POOLS = {
    "async": ("prefork", program.PROCESSES),
    "process": ("prefork", program.CHILDREN),
    "thread": ("threads", program.THREADS),
}
LEDGER = program.ledger() if "BENCH_LEDGER" in os.environ else None
app = Celery("benchmarks.systems.celery")
app.conf.update(
    broker_url=program.URL,
    broker_transport_options={"confirm_publish": True},
    task_queues=[Queue(QUEUE, routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_default_routing_key=QUEUE,
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_MULTIPLIER", "4")),
    worker_enable_remote_control=False,
    beat_schedule={
        f"report-{number}": {"task": "benchmarks.systems.celery.add", "schedule": timedelta(days=number + 2)}
        for number in range(program.SCHEDULES)
    },
)


@app.task(pydantic=True)
def add(payload: Add) -> int:
    """The job."""
    assert LEDGER is not None
    LEDGER.started(payload.x)
    return payload.x + payload.y


def work() -> None:
    """The worker's command line; this process becomes it."""
    pool, slots = POOLS[program.POOL]
    options = [f"--pool={pool}", f"--concurrency={slots}", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "--quiet", "--app=benchmarks.systems.celery", "worker", *options]
    os.execv(sys.executable, command)


def schedule() -> None:
    """Beat's command line."""
    database = f"{os.environ['BENCH_LEDGER']}.beat"
    command = ["celery", "--quiet", "--app=benchmarks.systems.celery", "beat", "--loglevel=WARNING", f"--schedule={database}"]
    os.execv(sys.executable, [sys.executable, "-m", *command])


producer = ExitStack()


async def connect() -> None:
    """One producer for all, as a careful program keeps it."""
    publisher.append(producer.enter_context(app.producer_or_acquire()))


publisher: list[object] = []


def publish(n: int) -> None:
    """One, confirmed."""
    add.apply_async((Add(x=n).model_dump(),), producer=publisher[0], retry=False)


if __name__ == "__main__":
    program.main(work=work, publish=publish, connect=connect, schedule=schedule)
