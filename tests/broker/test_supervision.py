"""Expected consumers against actual ones: whatever takes them away, they come back, and readiness says so meanwhile."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rmqjobs import AsyncPublisher, Job, Plugin, Settings
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.errors import BrokerGone
from rmqjobs.plugins import registry_of
from rmqjobs.testing.broker import RunningBroker
from rmqjobs.worker import Worker
from tests.faults.proxy import Proxy
from tests.helpers import Alone, Note, Slow, Stage, depth, events, manage, publishing, raw_channel, until, working


async def test_a_worker_that_consumes_can_publish(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the quickest jobs' records, and what failures ask for, would pile up behind a connection that is being made."""
    connect = PublishLink._connect

    async def connect_late(link: PublishLink) -> None:
        await asyncio.sleep(1)
        await connect(link)

    monkeypatch.setattr(PublishLink, "_connect", connect_late)
    async with working(Stage(), settings) as worker:
        assert worker.is_ready


async def test_a_deleted_queue_is_declared_and_consumed_again_by_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ 3.10 does not tell consumers of a quorum queue: whoever looks first declares it, the others must notice too."""
    monkeypatch.setattr("rmqjobs.amqp.consuming.CHECK_EVERY", 0.5)
    one, two = Stage(), Stage()
    async with publishing(settings) as jobs, working(one, settings), working(two, settings):
        async with raw_channel(settings) as channel:
            await channel.queue_delete(f"{settings.prefix}.demo")

        async def both_work() -> bool:
            await jobs.publish_many(Note(text="after", n=n) for n in range(400))
            await asyncio.sleep(0.3)
            return bool(one.seen and two.seen)

        await until(both_work)


async def test_a_channel_the_broker_closed_is_opened_again(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        await until(lambda: worker.is_ready)
        consumer = worker._consuming._consumers["demo"]
        lease, channel = consumer.lease, consumer._channel
        channel.raw.basic_ack(999)  # 406: unknown delivery tag
        await until(lambda: lease.is_lost)
        await jobs.publish(Note(text="after"))
        await until(lambda: stage.seen)
        await until(lambda: worker.is_ready)


@pytest.fixture
def proxy(settings: Settings) -> Iterator[Proxy]:
    with Proxy(settings.broker.endpoints[0].port) as proxy:
        yield proxy


def through(settings: Settings, proxy: Proxy, **changes: object) -> Settings:
    """The same broker, by way of the proxy."""
    port = settings.broker.endpoints[0].port
    return settings.model_copy(update={"url": settings.url.replace(f":{port}", f":{proxy.port}"), **changes})


@pytest.mark.parametrize("fault", ["cut", "reset", "swallow"])
async def test_whatever_the_network_does_consumers_come_back(settings: Settings, proxy: Proxy, fault: str) -> None:
    stage, heartbeat = Stage(), timedelta(seconds=2)
    async with publishing(settings) as jobs, working(stage, through(settings, proxy, heartbeat=heartbeat)) as worker:
        await until(lambda: worker.is_ready)
        getattr(proxy, fault)()
        await until(lambda: not worker.is_ready, timeout=heartbeat.total_seconds() * 4)  # also when nobody says a word
        await jobs.publish(Note(text="meanwhile"))
        await until(lambda: worker.is_ready)
        await until(lambda: stage.seen)


async def test_a_run_keeps_its_job_over_a_lost_connection(settings: Settings, proxy: Proxy) -> None:
    """Still running or ended meanwhile: it comes back to the same worker and does not run again."""
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, through(settings, proxy)) as worker:
        await until(lambda: worker.is_ready)
        await jobs.publish_many(Slow(seconds=seconds, n=n) for n, seconds in enumerate((0.5, 2.0)))
        await until(lambda: len(stage.seen) == 2)
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(1)  # the first one ends where it cannot be settled
        proxy.admit()
        await until(lambda: worker.is_ready)
        await until(lambda: not worker.running)
        await asyncio.sleep(0.3)
        assert len(stage.seen) == 2, "each ran once"
    assert await depth(settings, "demo.thread") == 0
    assert sorted(kind for kind, _ in await events(settings) if kind == "succeeded") == ["succeeded"] * 2


async def test_one_of_several_hosts_is_enough(settings: Settings, proxy: Proxy) -> None:
    stage, port = Stage(), settings.broker.endpoints[0].port
    both = through(settings, proxy).model_copy(update={"url": f"amqp://guest:guest@127.0.0.1:{proxy.port},127.0.0.1:{port}/"})
    async with AsyncPublisher(settings=both) as jobs, working(stage, both) as worker:
        await jobs.publish(Note(text="by the first"))
        await until(lambda: worker.is_ready and stage.seen)
        proxy.refuse()
        proxy.cut()
        await jobs.publish(Note(text="by the second"))
        await until(lambda: worker.is_ready and len(stage.seen) >= 2)  # a lost confirm means once more


async def test_a_slow_network_is_no_dead_one(settings: Settings, proxy: Proxy) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, through(settings, proxy, heartbeat=timedelta(seconds=1))) as worker:
        await until(lambda: worker.is_ready)
        connection = worker._consuming.connection
        proxy.slow(0.2)
        await jobs.publish_many(Note(text="slow", n=n) for n in range(20))
        await until(lambda: len(stage.seen) == 20)
        await asyncio.sleep(2)
        assert worker._consuming.connection is connection, "it is still the first one"
        proxy.slow(0)


async def test_a_changed_password_is_read_at_the_next_connection(
    broker: RunningBroker, settings: Settings, tmp_path: Path
) -> None:
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    user, secret = f"u{secrets.token_hex(3)}", tmp_path / "url"
    stage, port = Stage(), settings.broker.endpoints[0].port

    def set_password(password: str) -> None:
        manage(broker, "PUT", f"users/{user}", {"password": password, "tags": ""})
        manage(broker, "PUT", f"permissions/%2F/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
        secret.write_text(f"amqp://{user}:{password}@127.0.0.1:{port}/\n")

    set_password("first")
    mine = settings.model_copy(update={"url_file": str(secret), "publish_timeout": timedelta(seconds=10)})
    async with publishing(settings) as jobs, working(stage, mine) as worker:
        await until(lambda: worker.is_ready)
        manage(broker, "DELETE", f"users/{user}", None)  # RabbitMQ closes its connections
        await until(lambda: not worker.is_ready)
        await asyncio.sleep(0.5)  # it is refused meanwhile, and goes on trying
        set_password("second")
        await jobs.publish(Note(text="after"))
        await until(lambda: worker.is_ready)
        await until(lambda: stage.seen)
    manage(broker, "DELETE", f"users/{user}", None)


async def test_a_handler_that_publishes_while_the_connection_is_away_is_told_in_time(settings: Settings, proxy: Proxy) -> None:
    plugin, told = Plugin("demo"), []
    mine = through(settings, proxy, publish_timeout=timedelta(seconds=1))
    jobs = AsyncPublisher(settings=mine)

    @plugin.handler
    async def note(_payload: Note) -> None:
        proxy.refuse()
        proxy.cut()
        started = time.monotonic()
        try:
            await jobs.publish(Note(text="from a handler"))
        except BrokerGone as error:
            told.append((str(error), time.monotonic() - started))
        proxy.admit()

    async with jobs, publishing(settings) as others:
        worker = Worker(registry_of(plugin), mine)
        await worker.start()
        await jobs.publish_json("demo.unknown", {})  # it is connected
        await others.publish(Note(text="a"))
        ((words, seconds),) = await until(lambda: told)
        await worker.drain(timedelta(seconds=2))
    assert "not published" in words
    assert seconds >= 0.8, "it has tried for as long as it may"


async def test_a_singleton_that_lost_its_lock_stops_before_the_next_one_starts(settings: Settings, proxy: Proxy) -> None:
    """The network swallows everything: the first worker gives up by itself, before RabbitMQ gives the job away."""
    spans: list[tuple[str, float, float]] = []

    def plugin_of(who: str) -> Plugin:
        plugin = Plugin("demo")

        @plugin.handler(singleton=True)
        async def alone(_payload: Alone) -> None:
            began = time.monotonic()
            try:
                await asyncio.sleep(60 if who == "first" else 0)
            finally:
                spans.append((who, began, time.monotonic()))

        return plugin

    heartbeat = timedelta(seconds=2)
    first = Worker(registry_of(plugin_of("first")), through(settings, proxy, heartbeat=heartbeat))
    second = Worker(registry_of(plugin_of("second")), settings)
    async with publishing(settings) as jobs:
        await first.start()
        await jobs.publish(Alone())
        await until(lambda: first.running)
        await second.start()
        proxy.swallow()
        proxy.refuse()
        await until(lambda: len(spans) == 2)
    for worker in (first, second):
        await worker.drain(timedelta(seconds=1))
    (one, _, ended), (other, began, _) = spans
    assert (one, other) == ("first", "second")
    assert ended < began


async def test_what_waited_while_this_process_was_frozen_is_not_started(settings: Settings) -> None:
    """RabbitMQ has given it to another worker; an event loop that was held up is the same as a frozen process."""
    frozen, other, heartbeat = Stage(), Stage(), timedelta(seconds=1)
    async with publishing(settings) as jobs, working(frozen, settings.model_copy(update={"heartbeat": heartbeat})) as worker:
        await until(lambda: worker.is_ready)
        connection = worker._consuming.connection
        assert connection is not None
        sending = asyncio.create_task(jobs.publish_many(Note(text="meanwhile", n=n) for n in range(50)))
        await asyncio.sleep(0)
        connection.raw._read_at -= 1000  # as if this process had stood still since
        await sending
        await until(lambda: worker._consuming.connection is not connection and worker.is_ready)
        async with working(other, settings):
            await until(lambda: len(frozen.seen) + len(other.seen) >= 50)
            await asyncio.sleep(0.3)
    ran = sorted(entry[2] for entry in frozen.seen + other.seen)
    assert ran == list(range(50)), "each once"


async def test_a_link_that_is_busy_is_no_dead_one(settings: Settings, proxy: Proxy) -> None:
    """A large job over a slow network takes longer than a heartbeat; RabbitMQ's own heartbeats come all the while."""
    mine = through(settings, proxy, heartbeat=timedelta(seconds=1), publish_timeout=timedelta(seconds=30))
    async with AsyncPublisher(settings=mine) as jobs:
        await jobs.publish(Note(text="first"))
        connection = jobs._link._connection
        proxy.slow(0.1)  # for each 64 KB
        await jobs.publish(Note(text="x" * 3_000_000))
        proxy.slow(0)
        assert jobs._link._connection is connection


async def test_handlers_that_hold_up_the_loop_a_little_lose_nothing(settings: Settings) -> None:
    plugin, seen = Plugin("demo"), []

    @plugin.handler
    async def note(payload: Note) -> None:
        time.sleep(0.6)  # noqa: ASYNC251 - of a heartbeat of one second
        seen.append(payload.n)

    mine = settings.model_copy(update={"heartbeat": timedelta(seconds=1), "concurrency": 1})
    worker = Worker(registry_of(plugin), mine)
    await worker.start()
    before = worker._consuming.connection
    async with publishing(settings) as jobs:
        await jobs.publish_many(Note(text="slow", n=n) for n in range(8))
        await until(lambda: len(seen) == 8)
    assert worker._consuming.connection is before
    await worker.drain(timedelta(seconds=1))
    assert sorted(seen) == list(range(8))


async def test_a_handler_cannot_change_what_its_job_is_known_by(settings: Settings, proxy: Proxy) -> None:
    plugin, runs, replies = Plugin("demo"), [], []

    @plugin.handler
    async def note(_payload: Note, job: Job) -> str:
        runs.append(job.id)
        with contextlib.suppress(TypeError):
            job.headers["mine"] = 1  # type: ignore[index]
        await asyncio.sleep(1)
        return "done"

    worker = Worker(registry_of(plugin), through(settings, proxy))
    await worker.start()
    async with publishing(settings) as jobs, raw_channel(settings) as channel:
        answers = await channel.declare_queue(exclusive=True)
        await jobs.publish(Note(text="a"), headers={"trace": "x"}, reply_to=answers.name)
        await until(lambda: runs)
        proxy.cut()
        await until(lambda: not worker.is_ready)
        await until(lambda: worker.is_ready)
        await until(lambda: not worker.running)
        while (answer := await answers.get(no_ack=True, fail=False)) is not None:
            replies.append(answer.body)
    await worker.drain(timedelta(seconds=1))
    assert (len(runs), replies) == (1, [b'"done"'])


async def test_publishers_that_are_closed_while_they_connect_leave_nothing_open(settings: Settings, proxy: Proxy) -> None:
    for _ in range(10):
        jobs = AsyncPublisher(settings=through(settings, proxy))
        async with jobs:
            await asyncio.sleep(0.002)
    await until(lambda: not proxy.connections)
