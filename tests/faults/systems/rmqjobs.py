"""rmqjobs as it comes: one worker process from the command line, its plugin found through an entry point."""

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from rmqjobs import Job, Payload, Plugin, Publisher, RetryPolicy, Settings
from rmqjobs.topology import LADDER_LEVELS, Names
from tests.faults.systems import program

NAMES = Names(f"{program.PREFIX}.rmqjobs")
SETTINGS = Settings(
    url=program.URL,
    prefix=NAMES.prefix,
    heartbeat=timedelta(seconds=program.HEARTBEAT),
    publish_timeout=timedelta(seconds=program.CONFIRM_SECONDS),
    concurrency=8,
)
IN_CHILDREN = "FAULTS_IN_CHILDREN" in os.environ  # what is published now runs in child processes


class Count(Payload, type="faults.count"):
    n: int


class CountInChild(Payload, type="faults.count-in-child"):
    n: int


plugin = Plugin("faults", retry=RetryPolicy(first_delay=timedelta(seconds=1)))


@plugin.handler
async def count(payload: Count) -> None:
    await asyncio.sleep(program.begin(payload.n))
    program.finish(payload.n)


@plugin.handler(pool="process")
def count_in_child(payload: CountInChild, _job: Job) -> None:
    time.sleep(program.begin(payload.n))
    program.finish(payload.n)


def work() -> None:
    site = program.ledger.path.parent / "site"
    info = site / "rmqjobs_faults-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rmqjobs-faults\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rmqjobs.plugins]\nfaults = {__spec__.name}:plugin\n")
    environ = os.environ | SETTINGS.as_environ() | {"PYTHONPATH": f"{site}{os.pathsep}{Path.cwd()}"}
    os.execve(sys.executable, [sys.executable, "-m", "rmqjobs", "worker", "--plugin", "faults"], environ)


def publish(n: int) -> None:
    PUBLISHER.publish(CountInChild(n=n) if IN_CHILDREN else Count(n=n))


if __name__ == "__main__":
    PUBLISHER = Publisher(settings=SETTINGS)
    queues = ["faults", "faults.process"]
    ladder = [NAMES.delay(level) for level in range(LADDER_LEVELS)]
    program.main(
        work=work,
        publish=publish,
        waiting=[*map(NAMES.queue, queues), *ladder, NAMES.unrouted],
        dead=list(map(NAMES.dead_queue, queues)),
    )
