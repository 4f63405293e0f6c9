"""Looking at dead letters changes neither their order nor their headers nor their number, on any version, at any length."""

import random
from typing import Any

import pytest

from rmqjobs import Settings
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.topology import Names
from rmqjobs.wire.headers import is_brokers
from tests.broker.test_deadletters import fill
from tests.helpers import Act, Stage, depth, publishing, until, working

LOOKS = 50


async def state(settings: Settings) -> list[tuple[str, dict[Any, Any]]]:
    """Every dead letter in its order: id and headers, without those that the broker itself counts in."""
    async with desk(settings) as connection, connection.look(Names(settings.prefix).dead_queue("demo")) as look:
        return [
            (
                held.properties.message_id,
                {name: value for name, value in held.properties.headers.items() if not is_brokers(name)},
            )
            async for held in look.messages()
        ]


@pytest.mark.parametrize("count", [10, 100, 1_000])
async def test_fifty_looks_change_nothing(settings: Settings, count: int) -> None:
    await fill(settings, count)
    before = await state(settings)
    assert [job_id for job_id, _ in before] == [f"{n:06}" for n in range(count)]
    chance = random.Random(count)
    for _ in range(LOOKS):
        limit = chance.choice([None, 1, 3, 7, count // 2])
        selection = chance.choice([Selection(), Selection(reason="rejected"), Selection(ids=("000007",))])
        async with desk(settings) as connection:
            found = [
                letter.id async for letter in Review(connection, settings, by="test").letters("demo", selection, limit=limit)
            ]
        wanted = [job_id for job_id, headers in before if not selection.reason or headers["rmqjobs-reason"] == selection.reason]
        wanted = [job_id for job_id in wanted if not selection.ids or job_id == "000007"]
        assert found == wanted[:limit], f"limit {limit}, {selection.describe()}"
    assert await state(settings) == before
    assert await until(lambda: depth(settings, "demo.dead")) == count


async def test_a_look_that_is_ended_at_once_changes_nothing(settings: Settings) -> None:
    await fill(settings, 200)
    before = await state(settings)
    for _ in range(10):
        async with desk(settings) as connection, connection.look(Names(settings.prefix).dead_queue("demo")):
            pass
        assert await state(settings) == before


async def test_acting_keeps_the_order_of_what_stays(settings: Settings) -> None:
    await fill(settings, 60)
    await state(settings)  # from here on all of them have been held once
    async with desk(settings) as connection:
        await Review(connection, settings, by="test").drop("demo", Selection(reason="time limit"), Order(5))
    kept = [f"{n:06}" for n in range(60) if n % 2 or n >= 10]
    assert [job_id for job_id, _ in await state(settings)] == kept


async def test_the_oldest_comes_first_whatever_its_priority_was(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        ids = []
        for number, priority in enumerate((0, 9, None, 31, 4)):
            ids.append(await jobs.publish(Act(what="reject", n=number), priority=priority))
            await until(lambda number=number: depth_is(settings, number + 1))
    assert [job_id for job_id, _ in await state(settings)] == ids
    async with desk(settings) as connection:
        await Review(connection, settings, by="test").replay("demo", Selection(), Order(5))
        async with connection.look(Names(settings.prefix).queue("demo")) as look:
            priorities = {held.properties.message_id: held.properties.priority async for held in look.messages()}
    assert [priorities[job_id] for job_id in ids] == [0, 9, None, 31, 4], "a replayed job has its own again"


async def depth_is(settings: Settings, count: int) -> bool:
    return await depth(settings, "demo.dead") == count
