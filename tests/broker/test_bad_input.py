"""Whatever arrives: it dies with a reason, the body as it came, and the next job runs."""

from typing import Any

import aio_pika
import pytest

from rmqjobs import Settings
from rmqjobs.errors import InvalidJob
from tests.helpers import (
    Note,
    Stage,
    a_dead_letter,
    dead_letters,
    depth,
    events,
    publish_raw,
    publishing,
    raw_channel,
    until,
    working,
)

BAD = [
    ("a body that is not JSON", b"not json", {}, "malformed message", "demo.note"),
    ("an empty body", b"", {}, "malformed message", "demo.note"),
    ("bytes that are no text", b"\xff\xfe\x00", {}, "malformed message", "demo.note"),
    ("JSON nested too deeply", b"[" * 50_000 + b"]" * 50_000, {}, "malformed message", "demo.note"),
    ("another content type", b"<a/>", {"content_type": "text/xml"}, "malformed message", "text/xml"),
    ("a compressed body", b"{}", {"content_encoding": "gzip"}, "malformed message", "gzip"),
    (
        "a header of the wrong type",
        b'{"text":"a"}',
        {"headers": {"rmqjobs-attempt": "two"}},
        "malformed message",
        "rmqjobs-attempt",
    ),
    ("a body over the limit", b'{"text":"' + b"x" * 2000 + b'"}', {}, "malformed message", "max_body"),
    ("a payload that fails validation", b'{"n":"many"}', {}, "invalid payload", "text: Field required"),
    ("JSON of another shape", b"[1,2]", {}, "invalid payload", "demo.note"),
    ("an invalid payload without an id", b"{}", {"message_id": None}, "invalid payload", "Field required"),
]


@pytest.mark.parametrize(("body", "properties", "reason", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_bad_input_dies_with_its_reason_and_harms_nobody(
    settings: Settings, body: bytes, properties: dict[str, Any], reason: str, said: str
) -> None:
    stage = Stage()
    small = settings.model_copy(update={"max_body": 200_000 if body.startswith(b"[[") else 1500})
    async with publishing(settings) as jobs, working(stage, small):
        await publish_raw(settings, body, key="demo.note", **properties)
        await jobs.publish(Note(text="next"))
        letter = await a_dead_letter(settings)
        await until(lambda: stage.seen)
    assert (letter.reason, letter.body) == (reason, body)
    assert said in letter.error_message
    assert letter.id
    assert [seen[1] for seen in stage.seen] == ["next"]


async def test_a_body_of_ten_megabytes_dies_whole_and_harms_nobody(settings: Settings) -> None:
    stage, body = Stage(), b'{"text":"' + b"x" * 10_000_000 + b'"}'
    small = settings.model_copy(update={"max_body": 2**20})
    async with publishing(small) as jobs, working(stage, small):
        with pytest.raises(InvalidJob, match=r"20,000,0\d\d bytes.*1,048,576"):
            await jobs.publish(Note(text="x" * 20_000_000))
        await publish_raw(settings, body, key="demo.note")
        letter = await a_dead_letter(settings)
        await jobs.publish(Note(text="next"))
        await until(lambda: stage.seen)
    assert (letter.reason, letter.body) == ("malformed message", body)


async def test_a_message_without_any_property_is_a_job(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await publish_raw(settings, b'{"text": "bare", "newer": true}', key="demo.note", message_id=None, delivery_mode=1)
        await jobs.publish(Note(text="mine"))
        await until(lambda: len(stage.seen) == 2)
    assert {seen[1] for seen in stage.seen} == {"bare", "mine"}


async def test_a_priority_out_of_range_does_not_matter(settings: Settings) -> None:
    stage = Stage()
    async with working(stage, settings):
        await publish_raw(settings, b'{"text": "urgent"}', key="demo.note", priority=255)
        await until(lambda: stage.seen)


async def test_an_unknown_type_in_a_work_queue_waits_for_its_worker(settings: Settings) -> None:
    """A worker of an older version: the job goes to the ladder, and from there to wherever its type is bound by then."""
    async with working(Stage(), settings):
        async with raw_channel(settings) as channel:
            message = aio_pika.Message(b"{}", type="demo.unknown", message_id="u-1")
            await channel.default_exchange.publish(message, routing_key=f"{settings.prefix}.demo")
        await until(lambda: depth(settings, "unrouted"))
    assert ("retried", "demo.unknown") in await events(settings)
    assert await dead_letters(settings) == []


async def test_user_id_and_expiration_of_a_foreign_message_do_not_stop_a_retry(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings), working(stage, settings):
        await publish_raw(settings, b'{"what":"fail twice"}', key="demo.act", user_id="guest", expiration=30)
        await until(lambda: len(stage.seen) == 3)
    assert [seen[1] for seen in stage.seen] == [1, 2, 3]


async def test_every_bad_message_is_accounted_for(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        for body in (b"", b"{}", b"[]", b"nope", b'{"text":1}') * 40:
            await publish_raw(settings, body, key="demo.note")
        await jobs.publish_many(Note(text="good", n=n) for n in range(100))
        await until(lambda: len(stage.seen) == 100)
        await until(lambda: has_dead(settings, 200))
    assert await depth(settings, "demo") == 0


async def has_dead(settings: Settings, count: int) -> bool:
    return await depth(settings, "demo.dead") == count
