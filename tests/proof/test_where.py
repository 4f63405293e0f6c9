"""What is said of each job is what happened to it: states and runs, compared with a ledger that the handlers wrote.

Jobs that succeed, fail, are delayed, cancelled before and while they run, and lose their worker to `kill -9`.
"""

import asyncio
import random
import signal
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rmqjobs import AsyncPublisher, Settings
from rmqjobs.events import EventKind
from rmqjobs.lifecycle import State
from rmqjobs.operations.operator import operator
from rmqjobs.readmodel.filters import JobFilter
from rmqjobs.readmodel.follower import Follower
from rmqjobs.tracking import Life
from rmqjobs.tracking.story import story
from tests.acceptance.helpers import Mark, stand
from tests.helpers import depth, until

COUNT = 1_500
HALF_A_SECOND = 500  # jobs that a worker may do in the time between two writes to the journal
_ENDS = {EventKind.SUCCEEDED, EventKind.RETRIED, EventKind.DEAD}
_LAST = {EventKind.SUCCEEDED, EventKind.DEAD}


async def test_each_job_is_told_as_it_was(settings: Settings, tmp_path: Path) -> None:
    roll, numbers = random.Random(7), range(COUNT)
    mine = settings.model_copy(update={"beat_interval": timedelta(seconds=1)})
    follower = Follower(settings, tmp_path / "model.sqlite")
    await follower.open()
    with stand(tmp_path / "stand", settings.url, settings.prefix) as here:
        ids, cancelled = await _publish(mine, roll)
        workers = [await asyncio.to_thread(here.worker) for _ in range(2)]
        following = asyncio.create_task(follower.run())
        await until(lambda: len(here.effects) > COUNT // 4)
        workers[0].send_signal(signal.SIGKILL)
        await asyncio.to_thread(here.worker)

        expected = {number for number in numbers if number not in cancelled and number % 10 != 9}
        dead = sum(number % 10 == 9 and number not in cancelled for number in numbers)
        await until(lambda: {int(line.split()[0]) for line in here.effects} == expected, timeout=150)
        await until(lambda: _has(settings, "accept.dead", dead))
        await until(lambda: _has(settings, "accept", 0, most=0))
        known = await _settled(follower)
        runs: defaultdict[int, int] = defaultdict(int)
        for line in here.effects:
            runs[int(line.split()[0])] += 1
    lives = await follower.ask(lambda queries: {job_id: Life(job_id, queries.records(job_id)) for job_id in ids.values()})
    assert (await follower.ask(lambda queries: queries.count(JobFilter()))).jobs == COUNT
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await follower.close()

    untold = 0
    for number in numbers:
        life = lives[ids[number]]
        ended = [record.kind for record in life.records if record.kind in _ENDS and record.attempt]
        text = " | ".join(moment.text for moment in story(life))
        state = life.state(datetime.now(UTC))
        if number in cancelled:
            assert (state, runs[number], ended) == (State.CANCELLED, 0, []), text
            assert "cancelled by ann" in text
        elif not _LAST.intersection(ended):  # the killed worker was done with it, and had not written that yet
            untold += 1
            assert not state.is_end, text
        elif number % 10 == 9:  # negative numbers fail twice
            assert (state, runs[number]) == (State.DEAD, 0), text
            # Each perhaps twice, or the first one untold, where the worker was killed.
            assert set(ended) <= {EventKind.RETRIED, EventKind.DEAD}, text
            assert "given up: attempts exhausted" in text
        else:
            assert (state, set(ended)) == (State.DONE, {EventKind.SUCCEEDED}), text
            assert runs[number] >= 1  # twice only where the worker was killed before it could acknowledge
    assert untold == COUNT - known
    assert untold <= HALF_A_SECOND
    assert sum(runs.values()) - len(runs) <= HALF_A_SECOND  # of jobs that the killed worker held


async def _has(settings: Settings, queue: str, count: int, most: int = COUNT) -> bool:
    return count <= await depth(settings, queue) <= most


async def _settled(follower: Follower) -> int:
    """Jobs that have ended as far as the model knows, once that does not change any more."""
    known, before = -1, -2
    while known != before:
        await asyncio.sleep(4)
        counts = await follower.ask(lambda queries: queries.counts())
        known, before = sum(count for state, count in counts.items() if state.is_end), known
    return known


async def _publish(settings: Settings, roll: random.Random) -> tuple[dict[int, str], set[int]]:
    """Publishes all, while no worker runs, and cancels some of them."""
    ids: dict[int, str] = {}
    async with AsyncPublisher(settings=settings, app_id="proof") as jobs:
        for number in range(COUNT):
            payload = Mark(n=-number if number % 10 == 9 else number)
            delay = timedelta(seconds=roll.randint(1, 8)) if number % 7 == 3 else None
            ids[number] = await jobs.publish(payload, delay=delay)
    cancelled = {number for number in ids if number % 11 == 5}
    async with operator(settings, by="ann") as at_work:
        await at_work.cancel([(ids[number], "accept.mark") for number in sorted(cancelled)], because="the proof wants it")
    return ids, cancelled
