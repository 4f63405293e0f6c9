"""Each role with a user that may do what `rmqjobs topology permissions` says: everything works, and nothing beside it."""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rmqjobs import AsyncPublisher, Settings
from rmqjobs.amqp.connection import connect
from rmqjobs.amqp.declaring import declare
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import PermissionMissing
from rmqjobs.permissions import Role, roles
from rmqjobs.scheduler.catalogue import Catalogue
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.testing.broker import RunningBroker
from rmqjobs.topology import build, scheduling
from rmqjobs.worker import Worker
from tests.helpers import Act, Note, Stage, a_dead_letter, dead_letters, events, manage, until


@pytest.fixture
def users(broker: RunningBroker, settings: Settings) -> Iterator[dict[str, Settings]]:
    """A user for each role."""
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    made: dict[str, Settings] = {}
    names = []
    for role in roles(Stage().registry.handlers.values(), settings.prefix):
        names.append(f"{role.name}-{secrets.token_hex(3)}")
        made[role.name] = as_user(broker, settings, names[-1], role)
    yield made
    for name in names:
        manage(broker, "DELETE", f"users/{name}", None)


def as_user(broker: RunningBroker, settings: Settings, name: str, role: Role) -> Settings:
    configure, write, read = role.patterns
    manage(broker, "PUT", f"users/{name}", {"password": "p", "tags": ""})
    manage(broker, "PUT", f"permissions/%2F/{name}", {"configure": configure, "write": write, "read": read})
    url = settings.url.replace("guest:guest@", f"{name}:p@")
    return settings.model_copy(update={"url": url, "declare": bool(role.prefix)})


@pytest.fixture
async def declared(users: dict[str, Settings]) -> dict[str, Settings]:
    """The operator has applied the topology."""
    operator = users["operator"]
    topology = build(Stage().registry.handlers.values(), operator.prefix) + scheduling(operator.prefix)
    connection = await connect(operator.broker, name="operator", heartbeat=operator.heartbeat)
    await declare(connection, topology)
    await connection.close()
    return users


async def test_jobs_take_every_way_there_is(declared: dict[str, Settings]) -> None:
    stage = Stage()
    worker = Worker(stage.registry, declared["worker"])
    async with AsyncPublisher(settings=declared["publisher"]) as jobs:
        await jobs.publish(Note(text="before any worker"))
        await worker.start()
        await jobs.publish(Note(text="delayed"), delay=timedelta(seconds=1))
        for what in ("fail twice", "reject", "snooze", "report"):
            await jobs.publish(Act(what=what))
        await until(lambda: len([entry for entry in stage.seen if entry[0] == "fail twice"]) == 3)
        await until(lambda: len([entry for entry in stage.seen if entry[0] == "note"]) == 2)
        await jobs.publish(Act(what="wait"))
        await until(lambda: worker.running)
    assert await worker.drain(timedelta(seconds=0)) == 1, "it goes back to its queue"
    letter = await a_dead_letter(declared["operator"])
    assert letter.reason == "rejected"
    told = [kind for kind, _ in await events(declared["operator"])]
    assert {"succeeded", "retried", "snoozed", "dead", "progress", "returned"} <= set(told)


async def test_an_operator_replays_and_drops(declared: dict[str, Settings]) -> None:
    worker = Worker(Stage().registry, declared["worker"])
    await worker.start()
    async with AsyncPublisher(settings=declared["publisher"]) as jobs:
        await jobs.publish(Act(what="reject"))
        await jobs.publish(Act(what="reject"))
    await until(lambda: dead(declared["operator"], 2))
    await worker.drain(timedelta(seconds=5))
    async with desk(declared["operator"]) as connection:
        review = Review(connection, declared["operator"], by="test")
        assert len((await review.replay("demo", Selection(), Order(1))).done) == 1
        assert len((await review.drop("demo", Selection(), Order(1))).done) == 1


async def dead(settings: Settings, count: int) -> bool:
    return len(await dead_letters(settings)) == count


async def test_a_scheduler_ticks_and_reports(declared: dict[str, Settings], caplog: pytest.LogCaptureFixture) -> None:
    stage, settings = Stage(), declared["scheduler"]
    stage.plugin.schedule("often", every=timedelta(seconds=1), payload=Note(text="tick"))
    worker = Worker(stage.registry, declared["worker"])
    await worker.start()
    stop = asyncio.Event()
    scheduler = Scheduler(lambda: Catalogue(stage.registry), settings)
    running = asyncio.create_task(scheduler.run(stop))
    await until(lambda: len(stage.seen) >= 2)
    stop.set()
    await running
    await worker.drain(timedelta(seconds=5))
    assert not any("cannot claim" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("role", ["publisher", "worker", "scheduler"])
async def test_nobody_else_declares_or_deletes(declared: dict[str, Settings], role: str) -> None:
    settings = declared[role]
    connection = await connect(settings.broker, name="stranger", heartbeat=settings.heartbeat)
    channel = await connection.channel()
    with pytest.raises(PermissionMissing):
        await channel.call("queue_delete", queue=f"{settings.prefix}.demo")
    channel = await connection.channel()
    with pytest.raises(PermissionMissing):
        await channel.call("queue_declare", queue=f"{settings.prefix}.mine", durable=True)
    await connection.close()


FORBIDDEN = [
    ("publisher", "demo"),
    ("publisher", "demo.dead"),
    ("publisher", "journal"),
    ("worker", "demo.dead"),
    ("worker", "dropped"),
    ("worker", "scheduler"),
    ("scheduler", "demo"),
]


@pytest.mark.parametrize(("role", "queue"), FORBIDDEN)
async def test_nobody_reads_what_is_not_theirs(declared: dict[str, Settings], role: str, queue: str) -> None:
    connection = await connect(declared[role].broker, name="stranger", heartbeat=declared[role].heartbeat)
    channel = await connection.channel()
    with pytest.raises(PermissionMissing):
        await channel.call(
            "basic_consume", queue=f"{declared[role].prefix}.{queue}", on_message_callback=lambda *_delivery: None
        )
    await connection.close()
