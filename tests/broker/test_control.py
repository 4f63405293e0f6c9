"""What operators say to workers: pauses and cancels that outlive everything, and orders to those that run."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import Settings
from rmqjobs.amqp import controlling
from rmqjobs.amqp.connection import connect
from rmqjobs.amqp.controlling import ControlFeed, Speaker
from rmqjobs.amqp.declaring import declare
from rmqjobs.control import Verb, Word
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.lifecycle import State
from rmqjobs.operations.operator import Operator, operator
from rmqjobs.operations.queues import move, purge, states
from rmqjobs.operations.roster import roster
from rmqjobs.topology import Names, build
from rmqjobs.tracking import find
from rmqjobs.worker import orders
from tests.broker.test_tracking import life_of, told
from tests.helpers import Act, Alone, Heavy, Note, Slow, Stage, publishing, until, working

SHORT = timedelta(seconds=2)


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[Operator]:
    async with operator(settings, by="ann@desk") as one:
        yield one


@pytest.fixture
async def ann(settings: Settings) -> AsyncIterator[Operator]:
    """An operator on a broker where everything is declared."""
    async with working(Stage(), settings), at_work(settings) as one:
        pass
    async with at_work(settings) as one:
        yield one


async def test_a_pause_counts_for_workers_that_start_later(settings: Settings, ann: Operator) -> None:
    await ann.pause("demo", because="the disk is full")
    stage = Stage()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="waits"))
        await jobs.publish(Slow(seconds=0))
        async with working(stage, settings) as worker:
            await until(lambda: ("slow", 0, 1) in stage.seen)  # its queue is another one
            await asyncio.sleep(0.5)
            assert len(stage.seen) == 1
            assert worker.is_ready
            assert "the disk is full" in worker.orders.paused["demo"]
            (state,) = [each for each in await states(ann, ["demo"]) if each.queue == "demo"]
            assert state.ready == 1
            assert state.paused is not None
            assert state.paused.because == "the disk is full"
            await ann.resume("demo")
            await until(lambda: ("note", "waits", 0, 1) in stage.seen)


async def test_a_pause_takes_hold_while_jobs_run_and_gives_back_what_waits(settings: Settings, ann: Operator) -> None:
    few = settings.model_copy(update={"concurrency": 1})
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, few) as worker:
        await jobs.publish(Act(what="report"))
        for number in range(5):
            await jobs.publish(Act(what="report", n=number))
        await until(lambda: stage.seen)
        await ann.pause("demo")
        await until(lambda: "demo" in worker.orders.paused and not worker.running)
        assert len(stage.seen) < 6
        waiting = 6 - len(stage.seen)
        await until(lambda: _ready(ann, "demo", waiting))
        async with working(Stage(), settings) as other:  # it takes nothing either
            assert "demo" in other.orders.paused
        await ann.resume("demo")
        await until(lambda: len(stage.seen) == 6)


async def _ready(ann: Operator, queue: str, count: int) -> bool:
    return (await states(ann, [queue]))[0].ready == count


async def test_a_pause_ends_by_itself(settings: Settings, ann: Operator) -> None:
    await ann.pause("demo", until=datetime.now(UTC) + timedelta(seconds=10))
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        assert "demo" in worker.orders.paused
        await jobs.publish(Note(text="a"))
        await until(lambda: stage.seen)
        assert "demo" not in worker.orders.paused


async def test_a_paused_singleton_runs_nowhere(settings: Settings, ann: Operator) -> None:
    one, two = Stage(), Stage()
    queue = next(handler.queue for handler in one.registry.handlers.values() if handler.singleton)
    async with publishing(settings) as jobs, working(one, settings) as first, working(two, settings) as second:
        await ann.pause(queue)
        await until(lambda: queue in first.orders.paused and queue in second.orders.paused)
        await jobs.publish(Alone())
        await asyncio.sleep(1)
        assert not one.seen + two.seen
        await ann.resume(queue)
        await until(lambda: one.seen + two.seen)


@pytest.mark.parametrize("job", [Note(text="a"), Slow(seconds=0), Heavy()], ids=["async", "thread", "process"])
async def test_a_cancelled_job_that_waits_does_not_run(settings: Settings, ann: Operator, job: Note | Slow | Heavy) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        waiting = await jobs.publish(job)
        other = await jobs.publish(job)
        await ann.cancel([(waiting, job.job_type)], because="a mistake")
        async with working(stage, settings):
            life = await life_of(settings, waiting, State.CANCELLED)
            await life_of(settings, other, State.DONE)
            await until(lambda: _records(settings, waiting, 3))
            life = await life_of(settings, waiting, State.CANCELLED)
    assert [record.kind.value for record in life.records] == ["published", "cancelled", "cancelled"]
    assert "cancelled by ann@desk, because: a mistake" in told(life)
    assert "did not run on" in told(life)


async def _records(settings: Settings, job_id: str, count: int) -> bool:
    return any(len(life.records) >= count for life in await find(settings, job_id))


async def test_a_delayed_job_can_be_cancelled(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        job_id = await jobs.publish(Note(text="a"), delay=timedelta(seconds=2))
        await ann.cancel([(job_id, "demo.note")])
        assert (await life_of(settings, job_id, State.CANCELLED)).records
        await until(lambda: _records(settings, job_id, 3))
    assert not stage.seen


@pytest.mark.parametrize("job", [Act(what="wait"), Slow(seconds=1000), Heavy(what="hang")], ids=["async", "thread", "process"])
async def test_a_running_job_is_stopped(settings: Settings, ann: Operator, job: Act | Slow | Heavy) -> None:
    stage = Stage()
    if isinstance(job, Slow):
        _sleep_in_steps(stage)
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        job_id = await jobs.publish(job)
        await until(lambda: _runs(ann, job_id))
        await ann.cancel([(job_id, job.job_type)])
        await until(lambda: not worker.running)
        life = await life_of(settings, job_id, State.CANCELLED)
        assert life.records[-1].attempt == 1
        assert "attempt 1 was stopped after" in told(life)
    assert await ann.desk.depth(Names(settings.prefix).dead_queue("demo")) == 0


def _sleep_in_steps(stage: Stage) -> None:
    """A thread inside one long C call cannot be interrupted."""

    def slow(payload: Slow) -> None:
        end = time.monotonic() + payload.seconds
        while time.monotonic() < end:
            time.sleep(0.05)

    handlers = stage.plugin._handlers
    place = next(place for place, each in enumerate(handlers) if each.job_type == "demo.slow")
    del handlers[place]
    stage.plugin.handler(slow)


async def _runs(ann: Operator, job_id: str) -> bool:
    reports = await ann.ask(Verb.PING, within=SHORT, answers=1)
    return any(job["id"] == job_id and job["elapsed_seconds"] > 0 for report in reports for job in report["jobs"])


async def test_a_replayed_job_runs_although_it_was_cancelled_before(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        job_id = await jobs.publish(Act(what="reject"))
        await life_of(settings, job_id, State.DEAD)
        await ann.cancel([(job_id, "demo.act")])
        await Review(ann.desk, settings, by=ann.by).replay("demo", Selection(), Order(10))
        await until(lambda: len(stage.seen) == 2)


async def test_workers_answer_and_say_where_their_jobs_are(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    _sleep_in_steps(stage)
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        waits, sleeps = await jobs.publish(Act(what="wait")), await jobs.publish(Slow(seconds=1000))
        await until(lambda: _runs(ann, waits))
        await until(lambda: _runs(ann, sleeps))
        (report,) = await ann.ask(Verb.STACKS, worker.name, within=SHORT, answers=1)
        assert report["worker"] == worker.name
        assert report["state"] == "ready"
        assert report["memory_bytes"] > 10**6
        stacks = {job["id"]: job["stack"] for job in report["jobs"]}
        assert "helpers.py" in stacks[waits][0]
        assert any("in _act" in line for line in stacks[waits])
        assert any("in slow" in line for line in stacks[sleeps])
        assert await ann.ask(Verb.PING, "nobody", within=timedelta(seconds=0.5)) == []
        assert len(await ann.ask(Verb.PING, worker.name[:-1], within=SHORT, answers=1)) == 1
        assert len(await ann.ask(Verb.PING, f"{worker.name}$", within=SHORT, answers=1)) == 1
        assert await ann.ask(Verb.PING, f"{worker.name[:-1]}$", within=timedelta(seconds=0.5)) == []
        await ann.cancel([(waits, ""), (sleeps, "")])


async def test_a_child_process_says_where_it_is(settings: Settings, ann: Operator) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings) as worker:
        hangs = await jobs.publish(Heavy(what="hang"))
        await until(lambda: _runs(ann, hangs))
        (report,) = await ann.ask(Verb.STACKS, worker.name, within=timedelta(seconds=5), answers=1)
        (job,) = report["jobs"]
        assert any("in heavy" in line for line in job["stack"]), job
        await ann.cancel([(hangs, "")])
        await until(lambda: not worker.running)


async def test_a_drained_worker_takes_nothing_until_it_is_resumed(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings) as worker:
        (report,) = await ann.ask(Verb.DRAIN, worker.name, within=SHORT, answers=1)
        assert report["state"] == "draining"
        await until(lambda: len(worker.orders.paused) == len(report["queues"]))
        await jobs.publish(Note(text="a"))
        await asyncio.sleep(0.5)
        assert not stage.seen
        await ann.ask(Verb.UNDRAIN, worker.name, within=SHORT, answers=1)
        await until(lambda: stage.seen)
        await ann.ask(Verb.STOP, worker.name, within=SHORT, answers=1)
        assert worker.orders.told_to_stop.is_set()


async def test_the_roster_knows_who_was_here(settings: Settings, ann: Operator) -> None:
    async with working(Stage(), settings) as worker:
        (present,) = [each for each in await roster(settings, by="ann", within=SHORT) if "seen_at" not in each]
        assert present["worker"] == worker.name
    found = await roster(settings, by="ann", within=timedelta(seconds=0.5))
    assert [each["state"] for each in found] == ["stopped"]


async def test_purged_jobs_can_be_restored_and_replayed(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        ids = [await jobs.publish(Note(text="a", n=number), priority=3) for number in range(250)]
        dealt: list[int] = []
        assert await purge(ann, "demo", 240, because="too many", progress=dealt.append) == 240
        assert sum(dealt) == 240
        assert (await states(ann, ["demo"]))[0].ready == 10
        life = await life_of(settings, ids[0], State.DROPPED)
        assert "dropped by ann@desk, because: too many" in told(life)
        review = Review(ann.desk, settings, by=ann.by)
        assert len((await review.restore(Selection(reason="purged"), Order(1000))).done) == 240
        assert len((await review.replay("demo", Selection(), Order(1000))).done) == 240
        async with working(stage, settings):
            await until(lambda: len(stage.seen) == 250)
    assert {seen[2] for seen in stage.seen} == set(range(250))


async def test_jobs_move_to_another_queue_as_they_are(settings: Settings, ann: Operator) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        for number in range(20):
            await jobs.publish(Note(text="a", n=number), headers={"mine": "kept"})
        assert await move(ann, "demo", "demo.thread", 20, because="", progress=lambda _count: None) == 20
        found = {each.queue: each.ready for each in await states(ann, ["demo", "demo.thread"])}
        assert (found["demo"], found["demo.thread"]) == (0, 20)
        async with working(stage, settings):
            await until(lambda: len(stage.seen) == 20)


async def test_after_many_cancels_a_reader_is_quick(settings: Settings, ann: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What still counts is repeated now and then, so a reader never starts at the beginning."""
    monkeypatch.setattr(controlling, "REPEAT_AFTER", 50)
    names, now = Names(settings.prefix), datetime.now(UTC)
    await ann.pause("demo", because="first of all")
    for number in range(20):
        await ann.pause(f"other-{number}")
        await ann.resume(f"other-{number}")
    speaker = Speaker(ann.connection, names)
    for number in range(40):
        words = [Word(Verb.CANCEL, f"job-{number}-{each}", now, until=now + timedelta(days=1)) for each in range(250)]
        await speaker.say(words)
    connection = await connect(settings.broker, name="reader", heartbeat=settings.heartbeat)
    feed = ControlFeed(names)
    await feed.follow(connection)
    await connection.close()
    assert len(feed.standing.cancels) == 10_000
    assert list(feed.standing.paused(now)) == ["demo"]
    assert feed.start > 41  # it began behind the first pause, which was repeated
    assert feed.next - feed.start <= 2 * 50


async def test_a_control_stream_that_cannot_be_read_stops_nobody(
    settings: Settings, ann: Operator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(orders, "HEAR_AGAIN", 1)
    names, stage = Names(settings.prefix), Stage()
    await (await ann.connection.channel()).call("queue_delete", queue=names.control)
    mine = settings.model_copy(update={"declare": False})
    async with publishing(settings) as jobs, working(stage, mine) as worker:
        assert any("cannot hear operators" in each for each in caplog.messages)
        await jobs.publish(Note(text="a"))
        await until(lambda: stage.seen)
        assert worker.is_ready
        await declare(ann.connection, build(prefix=settings.prefix))
        await until(lambda: any("operators are heard again" in each for each in caplog.messages))
        async with at_work(settings) as bob:
            await bob.pause("demo")
        await until(lambda: "demo" in worker.orders.paused)


async def test_a_stream_that_was_made_anew_is_heard(settings: Settings, ann: Operator) -> None:
    await ann.pause("demo")
    async with working(Stage(), settings) as worker:
        assert "demo" in worker.orders.paused
        connection = worker._consuming.connection
        assert connection is not None
        await (await ann.connection.channel()).call("queue_delete", queue=Names(settings.prefix).control)
        await declare(ann.connection, build(prefix=settings.prefix))
        connection.cut("a test")
        await until(lambda: "demo" not in worker.orders.paused)  # nobody has said so in the new one
        async with at_work(settings) as bob:
            await bob.pause("demo")
        await until(lambda: "demo" in worker.orders.paused)


async def test_a_stream_that_is_gone_does_not_end_a_pause(settings: Settings, ann: Operator) -> None:
    await ann.pause("demo")
    mine = settings.model_copy(update={"declare": False})
    async with working(Stage(), mine) as worker:
        connection = worker._consuming.connection
        assert connection is not None
        await (await ann.connection.channel()).call("queue_delete", queue=Names(settings.prefix).control)
        connection.cut("a test")
        await until(lambda: worker._consuming.connection is not connection and worker.is_ready)
        await asyncio.sleep(1.5)
        assert "demo" in worker.orders.paused
