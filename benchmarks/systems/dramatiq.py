"""Dramatiq on RabbitMQ: threads, as it always works; the same prefetch as the others; publisher confirms.

It has no option for quorum queues, so the benchmark makes them the virtual host's default.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.systems import program
from benchmarks.systems.payload import Add

LEDGER = program.ledger() if "BENCH_LEDGER" in os.environ else None
if not program.AS_IT_COMES:
    os.environ.setdefault("dramatiq_queue_prefetch", str(program.PREFETCH))
dramatiq.set_broker(RabbitmqBroker(url=program.URL, confirm_delivery=True))


@dramatiq.actor(queue_name=f"{program.PREFIX}.dramatiq")
def add(payload: dict[str, Any]) -> None:
    """The job; it knows no types, so its function does what its users write."""
    assert LEDGER is not None
    LEDGER.started(Add.model_validate(payload).x)
    program.block()


def work() -> None:
    """The worker's command line; this process becomes it."""
    sizes = [] if program.AS_IT_COMES else [f"--processes={program.PROCESSES}", f"--threads={program.THREADS}"]
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", *sizes, "benchmarks.systems.dramatiq"])


def publish(n: int) -> None:
    """One, confirmed."""
    add.send(Add(x=n).model_dump())


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    program.main(work=work, publish=publish)
