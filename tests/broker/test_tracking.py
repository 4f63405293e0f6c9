"""Where a job is, from the journal alone: each answer compared with what really happened."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import AsyncPublisher, Plugin, Publisher, Settings
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import NoResult, PublisherClosed
from rmqjobs.lifecycle import State
from rmqjobs.permissions import Role, roles
from rmqjobs.testing.broker import RunningBroker
from rmqjobs.tracking import Life, find, until_ended
from rmqjobs.tracking.story import outlook, story
from tests.broker.test_roles import as_user
from tests.helpers import Act, Heavy, Note, Stage, a_dead_letter, events, manage, publish_raw, publishing, until, working


async def life_of(settings: Settings, job_id: str, state: State) -> Life:
    """The job's life, once it is in that state."""

    async def there() -> Life | None:
        lives = await find(settings, job_id)
        return lives[0] if lives and lives[0].state(datetime.now(UTC)) is state else None

    life: Life = await until(there)
    return life


def told(life: Life) -> str:
    return "\n".join([*(moment.text for moment in story(life)), outlook(life, datetime.now(UTC))])


async def test_each_end_of_a_job_is_told(settings: Settings) -> None:
    async with AsyncPublisher(settings=settings, app_id="shop") as jobs, working(Stage(), settings):
        done = await jobs.publish(Note(text="a", n=41), priority=3)
        heavy = await jobs.publish(Heavy())
        retried = await jobs.publish(Act(what="fail twice"))
        dead = await jobs.publish(Act(what="reject"))
        later = await jobs.publish(Note(text="b"), delay=timedelta(hours=24))
        life = await life_of(settings, done, State.DONE)
        assert life.records[-1].data["result"] == 42
        assert "published by shop, with priority 3" in told(life)
        assert "attempt 1 succeeded after" in told(life)
        assert (await life_of(settings, heavy, State.DONE)).records[-1].data["result"] == "heavy result"
        life = await life_of(settings, retried, State.DONE)
        assert "attempt 1 failed after" in told(life)
        assert "boom 1; waits 1 s" in told(life)
        assert "attempt 3 succeeded" in told(life)
        life = await life_of(settings, dead, State.DEAD)
        assert "attempt 1 failed after" in told(life)
        assert "; given up: rejected" in told(life)
        assert f"next: an operator decides. See: rmqjobs dlq show {dead}" in told(life)
        life = await life_of(settings, later, State.DELAYED)
        assert "published by shop, to run 1 day later" in told(life)
        assert "next: it is due in " in told(life)


async def test_a_job_of_another_program_is_known_from_its_run_on(settings: Settings) -> None:
    async with working(Stage(), settings):
        await publish_raw(settings, b'{"text": "raw"}', key="demo.note", message_id="from-elsewhere")
        life = await life_of(settings, "from-elsewhere", State.DONE)
    assert [record.kind.value for record in life.records] == ["succeeded"]


async def test_what_waits_for_a_worker_is_queued(settings: Settings) -> None:
    async with publishing(settings) as jobs:
        job_id = await jobs.publish(Note(text="a"))
        life = await life_of(settings, job_id, State.QUEUED)
    assert "next: it has waited for a worker for" in told(life)
    assert await find(settings, "never-published") == []


async def test_waiting_ends_with_the_job(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        job_id = await jobs.publish(Act(what="fail twice"))
        async with asyncio.timeout(60):
            life = await until_ended(settings, job_id)
    assert [record.kind.value for record in life.records] == ["published", "retried", "retried", "succeeded"]


@pytest.fixture
async def shut_out(broker: RunningBroker, settings: Settings) -> AsyncIterator[Settings]:
    """A publisher as permissions were before there were `published` records."""
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    async with working(Stage(), settings):
        pass  # declares everything
    (role,) = (each for each in roles((), settings.prefix) if each.name == "publisher")
    former, name = tuple(each for each in role.write if not each.endswith(".events")), f"publisher-{secrets.token_hex(3)}"
    yield as_user(broker, settings, name, Role("publisher", write=former))
    manage(broker, "DELETE", f"users/{name}", None)


async def test_a_publisher_that_may_not_write_to_the_journal_publishes_all_the_same(
    settings: Settings, shut_out: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    with caplog.at_level(logging.WARNING, "rmqjobs"):
        async with AsyncPublisher(settings=shut_out) as jobs, working(stage, settings):
            for n in range(20):
                await jobs.publish(Note(text="a", n=n))
                await asyncio.sleep(0.05)
            await until(lambda: len(stage.seen) == 20)
    assert sorted(seen[2] for seen in stage.seen) == list(range(20)), "each once: no job was on the channel that was closed"
    warned = [record for record in caplog.records if record.message == "this program may not write to the journal"]
    assert len(warned) == 1
    assert "publishing connection lost" not in caplog.text


async def test_published_records_can_be_switched_off(settings: Settings) -> None:
    quiet = settings.model_copy(update={"journal_published": False})
    async with publishing(quiet) as jobs, working(Stage(), settings):
        await jobs.publish(Act(what="reject"))
        await a_dead_letter(settings)
        await until(lambda: events(settings))
    assert "published" not in {kind for kind, _ in await events(settings)}


async def test_a_program_asks_for_the_result_of_its_job(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        good, bad = await jobs.publish(Note(text="a", n=1)), await jobs.publish(Act(what="reject"))
        nothing = await jobs.publish(Act())
        assert await jobs.job(good).result(timedelta(seconds=30)) == 2
        assert await jobs.job(good).state() is State.DONE
        assert await jobs.job(nothing).result(timedelta(seconds=30)) is None
        with pytest.raises(NoResult, match="is dead: rejected"):
            await jobs.job(bad).result(timedelta(seconds=30))
        assert await jobs.job("never-published").state() is None
        with pytest.raises(TimeoutError):
            await jobs.job("never-published").result(timedelta(seconds=0.5))


async def test_a_program_without_an_event_loop_asks_too(settings: Settings) -> None:
    def program() -> None:
        jobs = Publisher(settings=settings)
        asked = jobs.job(jobs.publish(Note(text="a", n=1)))
        assert asked.result(timedelta(seconds=30)) == 2
        assert asked.state() is State.DONE
        jobs.close()
        with pytest.raises(PublisherClosed):
            asked.state()

    async with working(Stage(), settings):
        await asyncio.to_thread(program)


async def test_a_replayed_job_has_not_ended(settings: Settings) -> None:
    """The dead letter is the first end that the journal has, and not the last."""
    mended, plugin = Stage(), Plugin("demo")

    @plugin.handler
    async def act(_payload: Act) -> int:
        return 5

    async with publishing(settings) as jobs:
        async with working(Stage(), settings):
            job_id = await jobs.publish(Act(what="reject"))
            await a_dead_letter(settings)
            await life_of(settings, job_id, State.DEAD)
        async with desk(settings) as operator:
            await Review(operator, settings, by="ada@home").replay("demo", Selection(ids=(job_id,)), Order(1, "mended"))
        life = await life_of(settings, job_id, State.QUEUED)
        assert "replayed by ada@home, because: mended" in told(life)
        asked = asyncio.create_task(jobs.job(job_id).result(timedelta(seconds=60)))
        await asyncio.sleep(1)
        assert not asked.done()
        mended.plugin = plugin
        async with working(mended, settings):
            assert await asked == 5
    life = await life_of(settings, job_id, State.DONE)
    assert life.attempts == 1, "since it was replayed"


async def test_ids_of_somebodys_own_are_found_whatever_they_look_like(settings: Settings) -> None:
    odd = [
        "order-1",
        "order-10",
        "order@2026-12-24",
        "x@2099-01-01T00:00:00Z",
        "0fffffff-ffff-7fff-bfff-ffffffffffff",
        "00000000-0000-7000-8000-000000000000",
        'a "quote" \\ and .*',
    ]
    async with publishing(settings) as jobs, working(Stage(), settings):
        for job_id in odd:
            await jobs.publish(Note(text="a"), job_id=job_id)
        for job_id in odd:
            assert await jobs.job(job_id).result(timedelta(seconds=60)) == 1
            assert await jobs.job(job_id).state() is State.DONE
