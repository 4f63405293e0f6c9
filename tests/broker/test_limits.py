"""A broker that takes less than usual: what does not fit is sent smaller, or dies as it is; nobody waits for it in vain."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import aio_pika
import pytest

from rmqjobs import AsyncPublisher, Job, Payload, Plugin, RetryPolicy, Settings
from rmqjobs.errors import InvalidJob
from rmqjobs.journal import follow
from rmqjobs.plugins import registry_of
from rmqjobs.testing.broker import PrivateNode
from rmqjobs.worker import Worker
from tests.helpers import a_dead_letter, dead_letters, private_node, publishing, raw_channel, until

MESSAGE, FRAME = 64 * 1024, 8 * 1024


class Big(Payload, type="demo.big"):
    what: str
    text: str = ""


def big() -> Plugin:
    plugin = Plugin("demo", retry=RetryPolicy(max_attempts=2, first_delay=timedelta(seconds=1), jitter=0))

    @plugin.handler
    async def work(payload: Big, job: Job) -> str:
        match payload.what:
            case "answer":
                return "x" * 200_000
            case "fail":
                await asyncio.gather(deep(300))
            case "talk":
                for n in range(60):
                    job.log(f"{n}", much="x" * 20_000)
        return "small"

    return plugin


async def deep(level: int) -> None:
    if level:
        await deeper(level)
    raise ValueError("at the bottom " + "☃" * 3_000)


async def deeper(level: int) -> None:
    await deep(level - 1)


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    with private_node(f"max_message_size = {MESSAGE}", f"frame_max = {FRAME}") as node:
        yield node


@pytest.fixture
async def small(node: PrivateNode) -> AsyncIterator[Settings]:
    settings = Settings(url=node.url, prefix=f"small-{id(object())}", journal_interval=timedelta(milliseconds=50))
    worker = Worker(registry_of(big()), settings)
    await worker.start()
    yield settings
    await worker.drain(timedelta(seconds=5))


async def asked(settings: Settings, payload: Payload) -> aio_pika.abc.AbstractIncomingMessage:
    """The reply to a job."""
    async with raw_channel(settings) as channel, publishing(settings) as jobs:
        queue = await channel.declare_queue(exclusive=True)
        await jobs.publish(payload, reply_to=queue.name)

        async def reply() -> aio_pika.abc.AbstractIncomingMessage | None:
            return await queue.get(fail=False)

        return await until(reply)  # type: ignore[no-any-return]


def lowered_to(size: int) -> str:
    """Where the versions of RabbitMQ have it; counts for new channels."""
    return f"application:set_env(rabbit, max_message_size, {size}), persistent_term:put(max_message_size, {size})."


async def test_a_result_that_is_too_large_is_answered_all_the_same(small: Settings) -> None:
    for _ in range(2):  # the second time the broker's limit is known
        reply = await asked(small, Big(what="answer"))
        assert reply.headers["rmqjobs-status"] == "done"
        assert reply.headers["rmqjobs-result-left-out"] == 200_002
        assert "200,002 bytes" in json.loads(reply.body)["error"]
    assert (await asked(small, Big(what="small"))).body == b'"small"'
    assert await dead_letters(small) == []


async def test_our_own_limit_counts_before_the_brokers(small: Settings) -> None:
    settings = small.model_copy(update={"prefix": f"{small.prefix}-own", "max_body": 100})
    worker = Worker(registry_of(big()), settings)
    await worker.start()
    reply = await asked(settings, Big(what="answer"))
    await worker.drain(timedelta(seconds=5))
    assert reply.headers["rmqjobs-result-left-out"] == 200_002


async def test_a_dead_letter_whose_headers_do_not_fit_leaves_out_what_is_for_people(small: Settings) -> None:
    async with publishing(small) as jobs:
        job_id = await jobs.publish(Big(what="fail"), headers={"tenant": "acme"})
    letter = await a_dead_letter(small)
    assert (letter.id, letter.reason, letter.attempts) == (job_id, "attempts exhausted", 2)
    assert letter.error_type == "ValueError"
    assert letter.traceback == ""


async def test_headers_that_do_not_fit_are_refused_before_they_cost_a_connection(small: Settings) -> None:
    async with AsyncPublisher(settings=small) as jobs:
        await jobs.publish(Big(what="small"))
        connection = jobs._link._connection
        with pytest.raises(InvalidJob, match="frame_max"):
            await jobs.publish(Big(what="small"), headers={"x": "y" * FRAME})
        with pytest.raises(InvalidJob, match="max_message_size"):
            await jobs.publish(Big(what="small", text="x" * MESSAGE))
        await jobs.publish(Big(what="small"))
        assert jobs._link._connection is connection


async def test_a_body_that_can_no_longer_be_sent_is_buried_by_the_broker(small: Settings, node: PrivateNode) -> None:
    settings = small.model_copy(update={"prefix": f"{small.prefix}-shrunk"})
    worker = Worker(registry_of(big()), settings)
    await worker.start()
    await worker.drain(timedelta(0))
    async with publishing(settings) as jobs:
        job_id = await jobs.publish(Big(what="fail", text="x" * 50_000))
    node.ctl("eval", lowered_to(1_000))
    try:
        worker = Worker(registry_of(big()), settings)
        await worker.start()
        letter = await a_dead_letter(settings)
        await worker.drain(timedelta(seconds=5))
    finally:
        node.ctl("eval", lowered_to(MESSAGE))
    assert (letter.id, letter.reason) == (job_id, "rejected")
    assert len(letter.body) > 50_000


async def test_a_journal_of_long_records_is_written_in_parts(small: Settings) -> None:
    async with publishing(small) as jobs:
        job_id = await jobs.publish(Big(what="talk"))

    async def said() -> list[str]:
        events = [event async for event in follow(small, start="first", stop_at_end=True)]
        return [str(event.data["message"]) for event in events if event.job == job_id and event.kind == "log"]

    assert await until(said) == [str(n) for n in range(60)]
