"""taskiq with taskiq-aio-pika: quorum queues, confirms, acknowledgement after the task; async, or its process pool."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

from taskiq import TaskiqScheduler
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from benchmarks.systems import program
from benchmarks.systems.payload import Add

LEDGER = program.ledger() if "BENCH_LEDGER" in os.environ else None
NAME = f"{program.PREFIX}.taskiq"
broker = AioPikaBroker(
    program.URL,
    qos=program.PREFETCH,
    exchange=Exchange(name=NAME),
    task_queues=[Queue(name=NAME)],
    delay_queue=Queue(name=f"{NAME}.delay"),
    dead_letter_queue=Queue(name=f"{NAME}.dead"),
)

if program.POOL == "async":

    @broker.task(task_name="add")
    async def add(payload: Add) -> int:
        """The job."""
        assert LEDGER is not None
        LEDGER.started(payload.x)
        return payload.x + payload.y

else:

    @broker.task(task_name="add")
    def add(payload: Add) -> int:
        """The job, in a thread or a child."""
        assert LEDGER is not None
        LEDGER.started(payload.x)
        program.block()
        return payload.x + payload.y


def work() -> None:
    """The worker's command line; this process becomes it."""
    options = ["--ack-type=when_executed", "--log-level=WARNING"]
    if not program.AS_IT_COMES:
        options += [f"--workers={program.PROCESSES}", f"--max-async-tasks={program.PREFETCH}"]
    if program.POOL == "process":
        options += ["--use-process-pool", f"--max-process-pool-processes={program.CHILDREN}"]
    if program.POOL == "thread" and not program.AS_IT_COMES:
        options += [f"--max-threadpool-threads={program.THREADS}"]
    command = [sys.executable, "-m", "taskiq", "worker", *options, "benchmarks.systems.taskiq:broker"]
    os.execv(sys.executable, command)


@broker.task(task_name="report", schedule=[{"interval": timedelta(days=number + 2)} for number in range(program.SCHEDULES)])
async def report() -> None:
    """Never run."""


scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker)])


def schedule() -> None:
    """The scheduler's command line."""
    options = ["--log-level=WARNING", "--skip-first-run"]
    command = [sys.executable, "-m", "taskiq", "scheduler", *options, "benchmarks.systems.taskiq:scheduler"]
    os.execv(sys.executable, command)


async def publish(n: int) -> None:
    """One, confirmed."""
    await add.kiq(Add(x=n))


if __name__ == "__main__":
    program.main(
        work=work,
        publish=publish,
        many=lambda numbers: program.in_windows(numbers, publish),
        connect=broker.startup,
        schedule=schedule,
    )
