"""A growing replay: a few first, then more, and none when one fails again."""

import asyncio
from datetime import timedelta

from rmqjobs import Plugin, Reject, RetryPolicy, Settings
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.canary import RECORDED_WITHIN, replay_growing
from rmqjobs.deadletters.groups import groups_of
from rmqjobs.deadletters.review import Order, Outcome, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.worker import Worker
from tests.helpers import Note, depth, publishing, until

COUNT = 40


class Mended:
    """A handler that fails until it is mended, and for one job after that."""

    def __init__(self) -> None:
        self.is_mended = False
        self.seen: list[int] = []

    @property
    def registry(self) -> Registry:
        plugin = Plugin("demo", retry=RetryPolicy(max_attempts=2, first_delay=timedelta(seconds=1)))

        @plugin.handler
        async def note(payload: Note) -> None:
            self.seen.append(payload.n)
            if not self.is_mended:
                raise Reject("the disk is full")
            if payload.text == "odd":
                raise ValueError(f"job {payload.n} is odd")

        return registry_of(plugin)


async def replayed(settings: Settings, mended: Mended, odd: int | None, told: list[str]) -> Outcome:
    """Dead letters of which one is odd, replayed by a canary once the handler is mended."""
    worker = Worker(mended.registry, settings)
    await worker.start()
    async with publishing(settings) as jobs:
        for number in range(COUNT):
            await jobs.publish(Note(text="odd" if number == odd else "even", n=number))
    await until(lambda: _dead(settings, COUNT))
    mended.is_mended = True
    mended.seen.clear()
    await asyncio.sleep(RECORDED_WITHIN.total_seconds())
    async with desk(settings) as at:
        review = Review(at, settings, by="test")
        (group,) = await groups_of(review, ["demo"])
        assert (group.count, group.error_message) == (COUNT, "the disk is full")
        outcome = await replay_growing(review, settings, "demo", group.selection, Order(COUNT), told=told.append)
    await worker.drain(timedelta(seconds=5))
    return outcome


async def _dead(settings: Settings, count: int) -> bool:
    return await depth(settings, "demo.dead") == count


async def test_when_all_is_well_everything_is_replayed(settings: Settings) -> None:
    mended, told = Mended(), list[str]()
    outcome = await replayed(settings, mended, None, told)
    assert (len(outcome.done), outcome.failed, outcome.stopped) == (COUNT, [], "")
    assert sorted(mended.seen) == list(range(COUNT))
    assert told == [f"{count} replayed, and none has failed again" for count in (1, 6, 26, COUNT)]
    assert await depth(settings, "demo.dead") == 0


async def test_it_stops_by_itself_when_one_fails_again(settings: Settings) -> None:
    mended, told = Mended(), list[str]()
    outcome = await replayed(settings, mended, 3, told)  # among the second step's
    assert len(outcome.done) == 6
    assert "failed again: ValueError: job 3 is odd" in outcome.stopped
    assert len(told) == 1
    assert await depth(settings, "demo.dead") >= COUNT - 6


async def test_it_stops_when_nobody_runs_them(settings: Settings) -> None:
    mended, told = Mended(), list[str]()
    await replayed(settings, mended, None, told)
    mended.is_mended = False
    worker = Worker(mended.registry, settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="late", n=99))
    await until(lambda: _dead(settings, 1))
    await worker.drain(timedelta(seconds=5))
    async with desk(settings) as at:
        review = Review(at, settings, by="test")
        patience = timedelta(seconds=2)
        outcome = await replay_growing(review, settings, "demo", Selection(), Order(1), patience=patience, told=told.append)
    assert "1 of them have not run within 2 s" in outcome.stopped
