"""Publishing: confirmed within one deadline, or a typed error."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from rmqjobs import AsyncPublisher, Publisher, Settings, hookimpl
from rmqjobs.errors import BrokerGone, InvalidJob, PublisherClosed, PublishRefused, Unroutable
from rmqjobs.testing.broker import free_port
from rmqjobs.wire.jobs import Message
from tests.helpers import Note, Stage, depth, publishing, raw_channel, until, working


async def test_many_threads_share_one_publisher(settings: Settings) -> None:
    with Publisher(settings=settings) as jobs, ThreadPoolExecutor(8) as threads:
        ids = await asyncio.to_thread(lambda: list(threads.map(lambda n: jobs.publish(Note(text="t", n=n)), range(400))))
    assert len(set(ids)) == 400
    assert await until(lambda: depth(settings, "unrouted")) == 400


async def test_a_forked_child_publishes_on_a_connection_of_its_own(settings: Settings) -> None:
    def in_parent_and_child() -> int:
        with Publisher(settings=settings) as jobs:
            jobs.publish(Note(text="parent"))
            child = os.fork()
            if child == 0:
                try:
                    jobs.publish(Note(text="child"))
                    os._exit(0)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            jobs.publish(Note(text="parent again"))
            return os.waitstatus_to_exitcode(status)

    assert await asyncio.to_thread(in_parent_and_child) == 0
    assert await until(lambda: depth(settings, "unrouted")) == 3


async def test_an_id_and_headers_of_my_own_reach_the_handler(settings: Settings) -> None:
    stage, headers = Stage(), {}

    class Watch:
        @hookimpl
        def rmqjobs_before_job(self, job: object) -> None:
            headers.update({"id": job.id, **job.headers})  # type: ignore[attr-defined]

    stage.plugin.hooks = (Watch(),)
    async with publishing(settings) as jobs, working(stage, settings):
        assert await jobs.publish(Note(text="a"), job_id="mine-1", headers={"traceparent": "00-ab-cd-01"}) == "mine-1"
        await until(lambda: stage.seen)
    assert headers == {"id": "mine-1", "traceparent": "00-ab-cd-01"}


async def test_without_a_broker_the_deadline_holds() -> None:
    settings = Settings(url=f"amqp://localhost:{free_port()}/", publish_timeout=timedelta(seconds=1))
    async with AsyncPublisher(settings=settings) as jobs, asyncio.timeout(30):
        with pytest.raises(BrokerGone, match="no RabbitMQ answers at localhost"):
            await jobs.publish(Note(text="a"))


async def test_a_full_queue_refuses(settings: Settings) -> None:
    async with publishing(settings) as jobs, raw_channel(settings) as channel:
        await jobs.publish(Note(text="declares the exchanges"))
        limits = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
        name = f"{settings.prefix}.full"
        queue = await channel.declare_queue(name, durable=True, arguments=limits)
        await queue.bind(f"{settings.prefix}.jobs", "full.up")
        refused = await until(lambda: refusal(jobs))
        await queue.delete(if_unused=False, if_empty=False)
    assert "full.up" in str(refused)


async def refusal(jobs: AsyncPublisher) -> PublishRefused | None:
    try:
        await jobs.publish_json("full.up", {})
    except PublishRefused as error:
        return error
    return None


async def test_a_damaged_topology_is_no_silent_loss(settings: Settings) -> None:
    async with publishing(settings) as jobs, raw_channel(settings) as channel:
        await jobs.publish(Note(text="declares the exchanges"))
        await channel.queue_delete(f"{settings.prefix}.unrouted")
        with pytest.raises(Unroutable, match="topology apply"):
            await jobs.publish(Note(text="lost?"))


async def test_publish_many_says_which_are_known_to_be_there(settings: Settings) -> None:
    async with publishing(settings) as jobs:
        with pytest.raises(InvalidJob):
            await jobs.publish_many([Note(text="a"), Note(text="b")], priority=99)
        assert len(await jobs.publish_many(Note(text="a", n=n) for n in range(3000))) == 3000
    assert await until(lambda: depth(settings, "unrouted")) == 3000


async def test_one_message_the_broker_dislikes_fails_alone(settings: Settings) -> None:
    """The broker closes the whole channel over it; the others are published all the same."""
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="declares"))
        bad = Message(f"{settings.prefix}.no-such-exchange", "x", b"{}", message_id="bad")
        outcomes = await asyncio.gather(
            *(jobs.publish(Note(text="good", n=n)) for n in range(20)),
            jobs._link.publish(bad, timedelta(seconds=5)),
            *(jobs.publish(Note(text="good", n=n)) for n in range(20)),
            return_exceptions=True,
        )
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(failed) == 1
    assert "no-such-exchange" in str(failed[0])
    assert await depth(settings, "unrouted") >= 41


async def test_close_waits_for_what_is_outstanding(settings: Settings) -> None:
    jobs = AsyncPublisher(settings=settings)
    tasks = [asyncio.create_task(jobs.publish(Note(text="late", n=n))) for n in range(50)]
    await asyncio.sleep(0)
    await jobs.close()
    assert len(await asyncio.gather(*tasks)) == 50


def test_a_program_that_forgets_to_close_still_ends(settings: Settings) -> None:
    before = threading.active_count()
    jobs = Publisher(settings=settings)
    jobs.publish(Note(text="a"))
    assert all(thread.daemon for thread in threading.enumerate()[before:])
    jobs.close()


def test_a_closed_publisher_refuses_and_keeps_nobody_waiting(settings: Settings) -> None:
    """Whoever has taken the engine before it is closed, and comes to it only then, hears of that at once."""
    jobs = Publisher(settings=settings)
    jobs.publish_json("demo.note", {})
    engine = jobs._running()
    jobs.close()
    message = jobs._write.json("demo.note", {}, None)
    for _ in range(2):
        with pytest.raises(PublisherClosed):
            engine.publish(message)
        with pytest.raises(PublisherClosed):
            engine.publish_many([message])


def test_closing_sees_through_what_other_threads_publish(settings: Settings) -> None:
    jobs, outcomes = Publisher(settings=settings), []
    jobs.publish_json("demo.note", {})
    engine = jobs._running()

    def publish() -> None:
        for _ in range(200):
            try:
                outcomes.append(engine.publish(jobs._write.json("demo.note", {}, None)))
            except PublisherClosed:
                return

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 50:
        time.sleep(0.001)
    jobs.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(outcomes) >= 50


async def test_a_closed_publisher_stays_closed(settings: Settings) -> None:
    jobs = AsyncPublisher(settings=settings)
    await jobs.publish(Note(text="a"))
    await jobs.close()
    await jobs.close()
    for use in (lambda: jobs.publish(Note(text="b")), lambda: jobs.publish_many([Note(text="b")]), jobs.__aenter__):
        with pytest.raises(PublisherClosed, match="Make another one"):
            await use()

    def in_a_thread() -> None:
        plain = Publisher(settings=settings)
        plain.publish(Note(text="a"))
        plain.close()
        plain.close()
        for publish in (lambda: plain.publish(Note(text="b")), lambda: plain.publish_many([Note(text="b")])):
            with pytest.raises(PublisherClosed, match="Make another one"):
                publish()

    await asyncio.to_thread(in_a_thread)
    assert await until(lambda: depth(settings, "unrouted")) == 2


AT_EXIT = """
import atexit, sys
from rmqjobs import Publisher
from rmqjobs.errors import RmqJobsError
jobs = Publisher()
def last_words():
    try:
        print(jobs.publish_json("demo.note", {"text": "bye"}))
    except RmqJobsError as error:
        print(error)
atexit.register(last_words)
"""


async def test_what_is_published_when_the_program_ends_is_published_or_told_why_not(settings: Settings) -> None:
    environ = os.environ | settings.as_environ()
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", AT_EXIT], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    if sys.version_info < (3, 12):
        assert await until(lambda: depth(settings, "unrouted")) == 1, ran.stdout
    else:
        assert "Publish before the program ends" in ran.stdout


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"deep": float("-inf")}], 2**63, {"a": {1, 2}}, {1: 2}])
async def test_a_header_that_amqp_cannot_carry_costs_nobody_else(settings: Settings, value: object) -> None:
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="a"))
        connection = jobs._link._connection
        with pytest.raises(InvalidJob, match="header 'x' has"):
            await jobs.publish(Note(text="b"), headers={"x": value})
        await jobs.publish(Note(text="c"))
        assert jobs._link._connection is connection, "it was not lost meanwhile"
    assert await until(lambda: depth(settings, "unrouted")) == 2
