"""Reviews: looking changes nothing, acting moves exactly what was meant, and the order stays."""

import asyncio

import aio_pika
import pytest

from rmqjobs import Settings
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import ReviewInProgress
from tests.helpers import Act, Note, Stage, dead_letters, depth, events, publishing, raw_channel, until, working


async def fill(settings: Settings, count: int) -> None:
    """Dead letters as another program would write them."""
    async with working(Stage(), settings):
        pass  # declares the queues
    async with raw_channel(settings) as channel:
        dead = await channel.get_exchange(f"{settings.prefix}.dead", ensure=False)
        for start in range(0, count, 500):
            await asyncio.gather(
                *(
                    dead.publish(
                        aio_pika.Message(
                            b'{"text":"a"}',
                            message_id=f"{n:06}",
                            type="demo.note",
                            delivery_mode=2,
                            headers={"rmqjobs-reason": "rejected" if n % 2 else "time limit"},
                        ),
                        routing_key="demo",
                    )
                    for n in range(start, min(start + 500, count))
                )
            )


@pytest.mark.parametrize(("count", "listings"), [(5_000, 2), (100, 50)])
async def test_listing_changes_nothing(settings: Settings, count: int, listings: int) -> None:
    """More listings than any version's delivery limit; 3.10 counts each of them."""
    await fill(settings, count)
    expected = [f"{n:06}" for n in range(count)]
    for _ in range(listings):
        assert [letter.id for letter in await dead_letters(settings)] == expected
    assert await until(lambda: depth(settings, "demo.dead")) == count


async def test_a_replay_runs_the_job_from_its_first_attempt(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        job_id = await jobs.publish(Act(what="fail"))
        await until(lambda: dead_letters(settings))
        async with desk(settings) as connection:
            outcome = await Review(connection, settings, by="ada@home").replay("demo", Selection(ids=(job_id,)), Order(1))
        assert [letter.id for letter in outcome.done] == [job_id]
        await until(lambda: len(stage.seen) == 6)
        (again,) = await until(lambda: dead_letters(settings))
    assert [seen[1] for seen in stage.seen] == [1, 2, 3, 1, 2, 3]
    assert (again.id, again.replays) == (job_id, 1)
    assert ("replayed", "demo.act") in await events(settings)


async def test_acting_moves_exactly_what_was_meant(settings: Settings) -> None:
    await fill(settings, 20)
    async with desk(settings) as connection:
        review = Review(connection, settings, by="test")
        dropped = await review.drop("demo", Selection(reason="time limit"), Order(4, "known"))
        left = [letter.id async for letter in review.letters("demo", Selection())]
        in_drop = [letter.id async for letter in review.dropped(Selection())]
        assert [letter.id for letter in dropped.done] == in_drop == ["000000", "000002", "000004", "000006"]
        assert left == [f"{n:06}" for n in range(20) if f"{n:06}" not in in_drop]
        restored = await review.restore(Selection(ids=("000002",)), Order(9))
        assert [letter.id for letter in restored.done] == ["000002"]
        back = await until(lambda: letters_of(review))
        assert back[-1] == "000002"
        stats = await review.stats("demo")
    assert stats.depth == 17
    assert stats.by_reason == {"rejected": 10, "time limit": 7}


async def letters_of(review: Review) -> list[str]:
    return [letter.id async for letter in review.letters("demo", Selection()) if letter.id]


async def test_two_reviewers_take_turns(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(settings, 3)
    monkeypatch.setattr("rmqjobs.amqp.reviewing._TURN", 1.0)
    async with desk(settings) as one, desk(settings) as two:
        letters = Review(one, settings, by="one").letters("demo", Selection())
        await anext(letters)
        with pytest.raises(ReviewInProgress, match="another review has held"):
            await anext(Review(two, settings, by="two").letters("demo", Selection()))
        await letters.aclose()  # type: ignore[attr-defined]
        assert len(await letters_of(Review(two, settings, by="two"))) == 3


async def test_queues_of_plugins_that_are_not_installed_here_are_found_by_the_management_api(settings: Settings) -> None:
    if settings.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Note(text="a"))
        async with desk(settings) as connection:
            review = Review(connection, settings, by="test")

            async def found() -> bool:
                return set(await review.queues([])) == {"demo", "demo.alone", "demo.process", "demo.thread"}

            await until(found)
