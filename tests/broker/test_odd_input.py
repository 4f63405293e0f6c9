"""Input that is small and odd, taken for what it is: found in the bug reports of other systems."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pika
import pytest
from pika.exceptions import StreamLostError

from rmqjobs import Job, Payload, Plugin, Settings
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Order, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.errors import BrokerUnavailable
from rmqjobs.plugins import registry_of
from rmqjobs.retry import RetryPolicy
from rmqjobs.worker import Worker
from tests.helpers import Act, Note, Stage, a_dead_letter, dead_letters, depth, publishing, until, working

NO_TEXT = b"\x9f\x00\xff\x10guid"  # what some .NET clients send as a correlation id
FLOATS = {"x": 1764277000.123, "tenth": 0.1, "huge": 1e300, "tiny": 5e-324, "minus": -0.0}


class Quote(Payload, type="odd.quote"):
    text: str


class Count(Payload, type="odd.count"):
    n: int


@pytest.mark.parametrize("text", ["unknown base in " + "acgt" * 250_000, "a" * 15_000_000], ids=["a sequence", "one letter"])
async def test_an_error_that_quotes_a_long_word_is_one_dead_letter_and_holds_up_nobody(settings: Settings, text: str) -> None:
    plugin, ran = Plugin("odd", retry=RetryPolicy(max_attempts=1)), list[int]()

    @plugin.handler
    async def quote(_payload: Quote) -> None:
        raise ValueError(text)

    @plugin.handler
    async def count(payload: Count) -> None:
        ran.append(payload.n)

    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Quote(text="short"))
        await jobs.publish_many([Count(n=n) for n in range(20)])
        letter = await a_dead_letter(settings, queue="odd")
        await until(lambda: len(ran) == 20)
    began = time.monotonic()
    await worker.drain(timedelta(seconds=20))
    assert time.monotonic() - began < 20, "drained because all was done, not because time was over"
    assert (letter.type, letter.reason, letter.error_type) == ("odd.quote", "attempts exhausted", "ValueError")
    assert letter.error_message.startswith(text[:500])
    assert len(letter.error_message) <= 1024


def bury(settings: Settings, headers: dict[str, Any] | None = None, **properties: Any) -> None:
    """A dead letter as a program of another language writes it."""
    connection = pika.BlockingConnection(pika.URLParameters(settings.url))
    made = pika.BasicProperties(delivery_mode=2, type="demo.note", headers=headers, **properties)
    connection.channel().basic_publish(f"{settings.prefix}.dead", "demo", b'{"text":"odd"}', made)
    connection.close()


async def test_a_property_that_is_no_text_is_listed_shown_replayed_and_dropped(settings: Settings) -> None:
    async with working(Stage(), settings):
        pass  # declares the queues
    await asyncio.to_thread(bury, settings, message_id="odd-1", correlation_id=NO_TEXT)
    await asyncio.to_thread(bury, settings, message_id="odd-2", correlation_id=NO_TEXT, headers={"raw": NO_TEXT})
    letters = await until(lambda: dead_letters(settings))
    assert [letter.id for letter in letters] == ["odd-1", "odd-2"]
    async with desk(settings) as connection:
        review = Review(connection, settings, by="test")
        assert [letter.id for letter in (await review.drop("demo", Selection(ids=("odd-2",)), Order(1))).done] == ["odd-2"]
        assert [letter.id for letter in (await review.replay("demo", Selection(), Order(1))).done] == ["odd-1"]
    stage = Stage()
    async with working(stage, settings):
        await until(lambda: stage.seen)
    assert stage.seen == [("note", "odd", 0, 1)]
    assert await depth(settings, "demo.dead") == 0


async def test_floats_in_headers_arrive_as_they_were_after_a_replay(settings: Settings) -> None:
    plugin, seen = Plugin("demo"), list[dict[str, Any]]()

    @plugin.handler
    async def note(_payload: Note, job: Job) -> None:
        seen.append(dict(job.headers))

    async with working(Stage(), settings):
        pass
    await asyncio.to_thread(bury, settings, message_id="floats", headers=FLOATS)
    (letter,) = await until(lambda: dead_letters(settings))
    assert letter.headers == FLOATS
    async with desk(settings) as connection:
        outcome = await Review(connection, settings, by="test").replay("demo", Selection(), Order(1))
    assert [letter.id for letter in outcome.done] == ["floats"]
    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    await until(lambda: seen)
    await worker.drain(timedelta(seconds=5))
    assert {name: seen[0][name] for name in FLOATS} == FLOATS


async def test_a_lost_connection_is_not_called_another_review(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish_many(Act(what="reject") for _ in range(3_000))
        while await depth(settings, "demo.dead") < 3_000:
            await asyncio.sleep(0.05)

    async def look_and_lose() -> None:
        async with desk(settings) as operator:
            async for _ in Review(operator, settings, by="test").letters("demo", Selection()):
                operator.connection.raw._terminate_stream(StreamLostError("cut"))

    with pytest.raises(BrokerUnavailable, match="cut"):
        await look_and_lose()
