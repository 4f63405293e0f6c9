"""taskiq with taskiq-aio-pika, one worker process, configured not to lose jobs, as its own documentation advises.

taskiq-aio-pika sends persistent messages with confirms into durable quorum queues, and reconnects by itself; its README names
the delay queue, for retries, and the arguments of queues. From "CLI" in taskiq's guide: `--ack-type when_executed`; from
"Available middlewares": `SmartRetryMiddleware`, whose last failure is only logged. It takes one broker URL, and has no time
limit for a publish, so we set one in the way of asyncio.
"""

import asyncio
import functools
import os
import sys

from taskiq import SmartRetryMiddleware
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from tests.faults.systems import program
from tests.faults.systems.background import run

MODULE = "tests.faults.systems.taskiq"
URL = f"{program.URL}?heartbeat={program.HEARTBEAT}"
SAFE = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}  # the first asks for the second
JOBS = Queue(name=f"{program.PREFIX}.taskiq", arguments=SAFE)
DELAYED = Queue(name=f"{JOBS.name}.delay", arguments=SAFE)
DEAD = Queue(name=f"{JOBS.name}.dead")

broker = AioPikaBroker(
    URL,
    qos=8,
    exchange=Exchange(name=JOBS.name),
    task_queues=[JOBS],
    delay_queue=DELAYED,
    dead_letter_queue=DEAD,
    reconnect_interval=1,
).with_middlewares(SmartRetryMiddleware(default_retry_label=True, default_retry_count=20, default_delay=5))


@broker.task(task_name="job")
async def job(n: int) -> None:
    await asyncio.sleep(program.begin(n))
    program.finish(n)


def work() -> None:
    options = ["--workers=1", "--ack-type=when_executed", "--log-level=WARNING"]
    os.execv(sys.executable, [sys.executable, "-m", "taskiq", "worker", *options, f"{MODULE}:broker"])


def publish(n: int) -> None:
    start_publisher()
    run(asyncio.wait_for(job.kiq(n), program.CONFIRM_SECONDS))


@functools.cache  # which keeps no exception: what failed is tried again
def start_publisher() -> None:
    run(broker.startup())


if __name__ == "__main__":
    program.main(work=work, publish=publish, waiting=[JOBS.name, DELAYED.name], dead=[DEAD.name])
