"""The path of a job, on a real broker: every verdict, every pool."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import pytest
from pika.exceptions import StreamLostError

from rmqjobs import Plugin, Settings, hookimpl
from rmqjobs.errors import Interrupted
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.worker import Worker
from tests.helpers import (
    Act,
    Alone,
    Heavy,
    Note,
    Slow,
    Stage,
    a_dead_letter,
    depth,
    events,
    publishing,
    raw_channel,
    succeeded,
    until,
    working,
)


async def test_jobs_of_every_pool_run_side_by_side(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await jobs.publish(Slow(seconds=0.5, n=1))
        await jobs.publish(Heavy())
        await jobs.publish(Note(text="quick"))
        await until(lambda: ("slow", 1, 1) in stage.seen and ("note", "quick", 0, 1) in stage.seen)
        await until(lambda: succeeded(settings, 3))


async def test_a_failing_job_succeeds_by_way_of_the_ladder(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await jobs.publish(Act(what="fail twice"))
        await until(lambda: len(stage.seen) == 3)
        await until(lambda: succeeded(settings, 1))
    attempts = [seen[1] for seen in stage.seen]
    waits = [later[2] - sooner[2] for sooner, later in zip(stage.seen, stage.seen[1:], strict=False)]
    assert attempts == [1, 2, 3]
    assert waits[0] >= 1, "never early"
    assert waits[1] >= 3


async def test_a_job_that_is_given_up_says_why(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        job_id = await jobs.publish(Act(what="fail"), headers={"tenant": "acme"})
        letter = await a_dead_letter(settings)
    assert (letter.id, letter.type, letter.reason, letter.attempts) == (job_id, "demo.act", "attempts exhausted", 3)
    assert (letter.error_type, letter.error_message) == ("ValueError", "boom 3")
    assert "raise ValueError" in letter.traceback
    assert json.loads(letter.body) == {"what": "fail", "n": 0}
    assert letter.headers["tenant"] == "acme"
    assert letter.first_failed_at is not None
    assert letter.failed_at is not None
    assert letter.failed_at - letter.first_failed_at >= timedelta(seconds=4)


async def test_reject_retry_and_snooze(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        for what in ("reject", "retry", "snooze"):
            await jobs.publish(Act(what=what))
        await until(lambda: len(stage.seen) == 5)
        letter = await a_dead_letter(settings)
        await until(lambda: succeeded(settings, 2))
    assert (letter.reason, letter.error_message, letter.attempts) == ("rejected", "never", 1)
    assert [seen[1] for seen in stage.seen if seen[0] == "retry"] == [1, 2]
    assert [seen[1] for seen in stage.seen if seen[0] == "snooze"] == [1, 1]


async def test_a_child_that_dies_is_tried_again_and_then_given_up(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Heavy(what="die"))
        letter = await until(lambda: a_dead_letter(settings, "demo.process"), timeout=40)
    assert (letter.reason, letter.error_type) == ("crash loop", "rmqjobs.errors.ChildDied")
    assert "exited with code 9" in letter.error_message


async def test_a_job_over_its_time_limit_is_killed_and_given_up(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Heavy(what="hang"))  # for ten minutes
        letter = await a_dead_letter(settings, "demo.process")
    assert letter.reason == "time limit"


async def test_an_error_of_a_child_is_told_as_it_was(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Heavy(what="fail"))
        letter = await a_dead_letter(settings, "demo.process")
    assert (letter.error_type, letter.error_message) == ("ValueError", "heavy boom 3")
    assert "helpers.py" in letter.traceback


async def test_delayed_jobs_are_on_time_and_never_early(settings: Settings) -> None:
    """A real ride on the ladder: many delays at once, none early, none lost."""
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        start = time.time()
        for n in range(60):
            await jobs.publish(Act(what="ok", n=n), delay=timedelta(seconds=n % 6 + 1))
        sent = time.time()
        await jobs.publish(Act(what="at"), run_at=datetime.now(UTC) + timedelta(seconds=2))
        await until(lambda: len(stage.seen) == 61, timeout=20)
    arrivals = sorted(seen[2] for seen in stage.seen if seen[0] == "ok")
    earliest = [start + n // 10 + 1 for n in range(60)]
    latest = [sent + n // 10 + 1 + 2 for n in range(60)]
    assert all(early <= at <= late for early, at, late in zip(earliest, arrivals, latest, strict=True))


async def test_an_expired_job_does_not_run_and_the_journal_says_so(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="old"), expires=timedelta(seconds=1))
        await jobs.publish(Note(text="new"), expires=timedelta(minutes=1))
        await asyncio.sleep(1.2)
        async with working(stage, settings):
            await until(lambda: stage.seen)
            await until(lambda: kinds(settings, "skipped"))
    assert [seen[1] for seen in stage.seen] == ["new"]


async def test_a_job_published_before_any_worker_ran_is_claimed(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="early"))
        await jobs.publish(Act(what="delayed"), delay=timedelta(seconds=1))
        await jobs.publish_json("nobody.knows", {})
        assert await until(lambda: depth(settings, "unrouted")) >= 2
        await asyncio.sleep(1.5)
        async with working(stage, settings):
            await until(lambda: len(stage.seen) == 2)
        assert [seen[0] for seen in stage.seen].count("note") == 1
        assert await until(lambda: depth(settings, "unrouted")) == 1


async def test_the_result_goes_to_reply_to(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings), raw_channel(settings) as channel:
        answers = await channel.declare_queue(exclusive=True)
        await jobs.publish(Note(text="a", n=41), reply_to=answers.name, correlation_id="c-1")
        await jobs.publish(Act(what="reject"), reply_to=answers.name)
        got = [await next_message(answers), await next_message(answers)]
    got.sort(key=lambda message: message.headers["rmqjobs-status"], reverse=True)
    assert [(message.headers["rmqjobs-status"], message.body) for message in got] == [
        ("done", b"42"),
        ("dead", b'{"reason":"rejected"}'),
    ]
    assert got[0].correlation_id == "c-1"


async def test_progress_and_log_lines_reach_the_journal(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Act(what="report"))
        await until(lambda: kinds(settings, "succeeded"))
    assert [kind for kind, _ in await events(settings) if kind not in ("published", "started")] == [
        "log",
        "progress",
        "succeeded",
    ]


async def test_a_singleton_never_runs_twice_at_once(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings), working(stage, settings):
        await jobs.publish_many(Alone(n=n) for n in range(10))
        await until(lambda: len(stage.seen) == 10)
    assert stage.most == 1


async def test_a_drain_gives_everything_back_and_counts_nothing(settings: Settings) -> None:
    first, second = Stage(), Stage()
    narrow = settings.model_copy(update={"concurrency": 2})
    async with publishing(settings) as jobs:
        async with working(first, narrow, grace=0.2):
            await jobs.publish(Act(what="resume"))
            await jobs.publish(Act(what="wait"))
            await until(lambda: len(first.seen) == 3)
            await jobs.publish_many([Note(text="waiting", n=n) for n in range(2)])  # prefetched, not started
            await asyncio.sleep(0.2)
        assert not [seen for seen in first.seen if seen[0] == "note"]
        async with working(second, settings, grace=0.2):
            await until(lambda: len(second.seen) == 5)
    assert ("state", {"page": 4}) in second.seen
    assert {seen[1] for seen in second.seen if seen[0] in ("resume", "wait")} == {1}
    assert {seen[3] for seen in second.seen if seen[0] == "note"} == {1}


async def kinds(settings: Settings, wanted: str) -> list[str]:
    return [kind for kind, _ in await events(settings) if kind == wanted]


async def next_message(queue: aio_pika.abc.AbstractQueue) -> aio_pika.abc.AbstractIncomingMessage:
    return await until(lambda: queue.get(no_ack=True, fail=False))


@pytest.mark.parametrize("count", [2000])
async def test_many_jobs_each_run_once(settings: Settings, count: int) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        ids = await jobs.publish_many(Note(text="many", n=n) for n in range(count))
        await until(lambda: len(stage.seen) >= count, timeout=30)
    assert len(set(ids)) == count
    assert sorted(seen[2] for seen in stage.seen) == list(range(count))


async def test_a_singleton_is_stopped_when_its_lock_is_lost(settings: Settings) -> None:
    """The broker is about to give the job to another worker; ours must not go on beside it."""
    stage, ended = Stage(), []

    class Watch:
        @hookimpl
        def rmqjobs_after_job(self, error: BaseException | None) -> None:
            ended.append(error)

    plugin = Plugin("demo", hooks=[Watch()])

    @plugin.handler(singleton=True)
    async def alone(payload: Alone) -> None:
        stage.seen.append(("started",))
        await asyncio.sleep(60 if len(stage.seen) == 1 else 0)

    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Alone())
        await until(lambda: stage.seen)
        cut = worker._consuming.connection
        assert cut is not None
        cut.raw._terminate_stream(StreamLostError("cut"))  # as a network does, without a word
        await until(lambda: len(stage.seen) == 2)
        await until(lambda: len(ended) == 2)
    assert isinstance(ended[0], Interrupted)
    assert ended[1] is None
    await worker.drain(timedelta(seconds=1))


def slowly(payload: Slow) -> None: ...


async def test_jobs_left_in_a_handlers_former_queue_are_named_at_start(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def version(**options: Any) -> Registry:
        plugin = Plugin("demo")

        plugin.handler(**options)(slowly)
        return registry_of(plugin)

    former = Worker(version(), settings)
    await former.start()
    await former.drain(timedelta(0))
    async with publishing(settings) as jobs:
        await jobs.publish_many(Slow(n=n) for n in range(3))
    later = Worker(version(pool="process"), settings)  # it only starts: the handler is never called
    await later.start()
    await later.drain(timedelta(0))
    assert [(record.queue, record.jobs) for record in caplog.records if "nobody consumes" in record.message] == [  # type: ignore[attr-defined]
        (f"{settings.prefix}.demo.thread", 3)
    ]
