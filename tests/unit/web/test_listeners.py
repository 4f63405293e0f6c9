"""Those who listen: each hears everything once, or that it has missed something."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from rmqjobs.amqp.streams import StreamMessage
from rmqjobs.events import Event, EventKind
from rmqjobs.web import listeners
from rmqjobs.web.listeners import Heard, Listeners
from rmqjobs.wire import events as wire


def message(offset: int, job: str = "7") -> StreamMessage:
    return StreamMessage(offset, wire.encode(Event(EventKind.SUCCEEDED, datetime.now(UTC), job, "x")), "w")


async def hear(generator: Any) -> Heard:
    async with asyncio.timeout(5):
        heard: Heard = await anext(generator)
        return heard


async def test_a_listener_hears_what_comes_and_only_its_job() -> None:
    hub = Listeners()
    listening, picky = hub.listen(), hub.listen(job="8")
    waiting, other = asyncio.create_task(hear(listening)), asyncio.create_task(hear(picky))
    await asyncio.sleep(0)
    hub.heard([message(1), message(2, "8")])
    assert (await waiting).offset == 1
    assert (await other).offset == 2


async def test_who_comes_back_hears_what_was_missed() -> None:
    hub = Listeners()
    hub.heard([message(offset) for offset in range(10)])
    coming_back = hub.listen(after=7)
    assert [(await hear(coming_back)).offset for _ in range(2)] == [8, 9]


@pytest.mark.parametrize("after", [3, 500])
async def test_who_was_away_too_long_is_told(after: int) -> None:
    hub = Listeners()
    hub.heard([message(offset) for offset in range(50, 60)])
    assert await hear(hub.listen(after=after)) == Heard(59, None)


async def test_a_slow_listener_is_told_that_it_missed_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "MOST_WAITING", 3)
    hub = Listeners()
    slow = hub.listen()
    first = asyncio.create_task(hear(slow))
    await asyncio.sleep(0)
    hub.heard([message(offset) for offset in range(10)])
    await first
    heard = [await hear(slow) for _ in range(2)]
    assert [each.events is None for each in heard] == [False, True]
