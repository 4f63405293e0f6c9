"""A lane runs so many at once and keeps the rest in order."""

import asyncio
import contextvars
from typing import Any

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
    assert lane.running == 2, "counted from the moment they are sure to start"
    await asyncio.sleep(0.01)
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
    assert lane.take(lambda number: number == 2) == [2]
    assert list(lane.waiting) == [1, 3, 4]
    assert lane.take() == [1, 3, 4]
    gate.set()
    await asyncio.sleep(0.01)
    assert begun == [0]


async def test_items_that_do_not_wait_need_no_task_of_their_own() -> None:
    tasks: set[Any] = set()

    async def work(_number: int) -> None:
        tasks.add(asyncio.current_task())

    lane = Lane(100, work)
    for number in range(1000):
        lane.submit(number)
    await asyncio.sleep(0.05)
    assert len(tasks) == 1
    assert lane.running == 0


async def test_no_item_sees_the_variables_of_another() -> None:
    variable, seen = contextvars.ContextVar("variable", default="clean"), []

    async def work(number: int) -> None:
        seen.append(variable.get())
        variable.set(f"of {number}")
        await asyncio.sleep(0)
        seen.append(variable.get())

    lane = Lane(1, work)
    for number in range(3):
        lane.submit(number)
    await asyncio.sleep(0.02)
    assert seen == ["clean", "of 0", "clean", "of 1", "clean", "of 2"]


async def test_a_cancellation_hits_the_item_that_asked_for_it_and_no_other() -> None:
    ended: list[str] = []

    async def work(number: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        if number == 0:
            task.cancel()  # and returns before it can be cancelled
            ended.append("returned")
        elif number == 1:
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                ended.append("swallowed")
        else:
            async with asyncio.timeout(1), asyncio.TaskGroup():
                await asyncio.sleep(0.001)
            ended.append("untouched")

    lane = Lane(1, work)
    for number in range(4):
        lane.submit(number)
    await asyncio.sleep(0.05)
    assert ended == ["returned", "swallowed", "untouched", "untouched"]


async def test_what_raises_is_told_and_the_next_one_runs() -> None:
    told, ran = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))

    async def work(number: int) -> None:
        if number == 0:
            raise ValueError("boom")
        ran.append(number)

    lane = Lane(1, work)
    lane.submit(0)
    lane.submit(1)
    await asyncio.sleep(0.01)
    assert [str(error) for error in told] == ["boom"]
    assert ran == [1]


async def test_many_that_wait_run_side_by_side() -> None:
    most = running = 0

    async def work(_number: int) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    lane = Lane(50, work)
    for number in range(200):
        lane.submit(number)
    while lane.running:
        await asyncio.sleep(0.01)
    assert most == 50
