"""What a job costs a worker, from its bytes to its acknowledgement, in bytecode instructions, which no neighbour disturbs."""

import asyncio
import sys
from collections import Counter
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest

from rmqjobs import AsyncPublisher, Payload, Plugin, Settings
from rmqjobs.failures import OUR_FILES
from rmqjobs.plugins import registry_of
from rmqjobs.worker import Worker

FEW, MANY = 500, 2_500
# Measured on CPython 3.11: 1,050 and 3,140, within two in a hundred; fifty of ours since the journal keeps results and confirms
# are told apart before pika looks for callbacks. Raise them for a reason that is worth it.
OURS, WITH_CLIENT = 1_100, 3_800  # of the libraries more on a busy machine, which hands over fewer messages at a time
TRIES = 3


class Add(Payload, type="hot.add"):
    x: int
    note: str = "n" * 160


@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or coverage counts already")
@pytest.mark.timeout(900)  # a busy machine takes minutes to count
async def test_a_job_costs_no_more_than_it_did(settings: Settings) -> None:
    # What a worker does every few seconds, however many jobs there are, would be the more the busier the machine is.
    settings = settings.model_copy(update={"beat_interval": timedelta(hours=1)})
    few, many = list[Counter[str]](), list[Counter[str]]()
    for _ in range(TRIES):
        few.append(await instructions(settings, FEW))
        many.append(await instructions(settings, MANY))
        # A busy machine hands over fewer messages at a time, which only adds: the least of all tries is what the code costs.
        # What a worker does once, however many jobs there are, is in both.
        ours, all_of_them = (
            (min(each[what] for each in many) - min(each[what] for each in few)) / (MANY - FEW) for what in ("ours", "all")
        )
        if ours < OURS and all_of_them < WITH_CLIENT:
            break
    print(f"{ours:.0f} bytecode instructions of ours, {all_of_them:.0f} with those of libraries")  # noqa: T201
    assert ours < OURS
    assert all_of_them < WITH_CLIENT


async def instructions(settings: Settings, jobs: int) -> Counter[str]:
    """Those of a worker that finds so many jobs, from its start to their end."""
    plugin, ran, done = Plugin("hot"), bytearray(jobs), asyncio.Event()
    counts: Counter[str] = Counter()

    @plugin.handler
    async def add(payload: Add) -> int:
        ran[payload.x] += 1
        if payload.x == jobs - 1:
            done.set()
        return payload.x

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "opcode":
            counts["all"] += 1
            counts["ours"] += frame.f_code.co_filename.startswith(OUR_FILES)
        else:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return count

    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    await worker.drain(timedelta(0))  # the queue is declared
    async with AsyncPublisher(settings=settings) as publisher:
        await publisher.publish_many(Add(x=n) for n in range(jobs))
    worker = Worker(registry_of(plugin), settings)
    sys.settrace(count)
    try:
        await worker.start()
        await done.wait()
    finally:
        sys.settrace(None)
    await worker.drain(timedelta(seconds=5))
    assert set(ran) == {1}
    return counts
