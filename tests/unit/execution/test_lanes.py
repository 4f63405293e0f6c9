"""A lane runs so many at once and keeps the rest in order."""

import asyncio

from rmqjobs.execution.lanes import Lane


async def test_never_more_than_its_slots_and_in_order() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        await gates[number].wait()

    lane = Lane(2, work)
    for number in range(4):
        lane.submit(number)
    await asyncio.sleep(0)
    assert (begun, lane.running) == ([0, 1], 2)
    gates[1].set()
    await asyncio.sleep(0.01)
    assert begun == [0, 1, 2]
    for gate in gates:
        gate.set()
    await asyncio.sleep(0.01)
    assert (begun, lane.running) == ([0, 1, 2, 3], 0)


async def test_what_has_not_started_can_be_taken_back_or_forgotten() -> None:
    gate = asyncio.Event()
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        await gate.wait()

    lane = Lane(1, work)
    for number in range(5):
        lane.submit(number)
    await asyncio.sleep(0)
    lane.forget(lambda number: number == 2)
    assert lane.take_waiting() == [1, 3, 4]
    gate.set()
    await asyncio.sleep(0.01)
    assert begun == [0]
