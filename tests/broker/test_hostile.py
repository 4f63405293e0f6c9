"""What hostile or sloppy programs send, and handlers do: nothing of it stops a worker, a publisher or a review."""

import asyncio
import json
import struct
import time
from datetime import timedelta
from typing import Any

import aio_pika
import pika
import pytest

from rmqjobs import AsyncPublisher, Job, Payload, Plugin, RetryPolicy, Settings
from rmqjobs.errors import ConfigurationError, InvalidJob
from rmqjobs.plugins import registry_of
from rmqjobs.worker import Worker
from tests.helpers import (
    Act,
    Heavy,
    Note,
    Stage,
    a_dead_letter,
    dead_letters,
    depth,
    events,
    publish_raw,
    publishing,
    raw_channel,
    succeeded,
    until,
    working,
)

LONG = "x" * 256


class Bad(Payload, type="demo.bad"):
    how: str


class BrokenText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Odd(BaseException):
    pass


def misbehaving() -> Plugin:
    plugin = Plugin("demo", retry=RetryPolicy(max_attempts=1))

    @plugin.handler
    async def bad(payload: Bad, job: Job) -> object:
        match payload.how:
            case "half a character":
                raise ValueError("cannot read \udcff")
            case "no text":
                raise BrokenText
            case "exit":
                raise SystemExit(3)
            case "odd":
                raise Odd
            case "huge checkpoint":
                job.checkpoint("x" * 200_000)
            case "odd log":
                job.log("half \udcff")
                job.log("x" * 2_000_000)
            case "bytes":
                return b"\xff\xd8"
            case "no repr":
                return Unwritable()
        return None

    return plugin


@pytest.mark.parametrize(
    "options",
    [
        {"job_id": LONG},
        {"correlation_id": LONG},
        {"reply_to": LONG},
        {"headers": {LONG: 1}},
        {"headers": {"a": {"b": {1}}}},
        {"headers": {"a": "😀" * 40_000}},
        {"headers": {1: 1}},
        {"headers": {"big": 2**70}},
        {"job_id": 5},
        {"priority": 1.5},
        {"delay": 5},
        {"expires": timedelta.max},
    ],
    ids=str,
)
async def test_what_amqp_cannot_carry_is_refused_and_the_publisher_goes_on(settings: Settings, options: dict[str, Any]) -> None:
    async with publishing(settings) as jobs:
        with pytest.raises(InvalidJob):
            await jobs.publish(Note(text="a"), **options)
        await jobs.publish(Note(text="b"))


async def test_a_payload_that_is_not_json_is_refused(settings: Settings) -> None:
    async with publishing(settings) as jobs:
        for data in (b"{not json", b"", object()):
            with pytest.raises(InvalidJob, match="JSON"):
                await jobs.publish_json("demo.note", data)  # type: ignore[arg-type]
        with pytest.raises(InvalidJob, match="JSON"):
            await jobs.publish(Note(text="half \udcff"))


async def test_headers_keep_their_values_all_the_way(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Act(what="reject"), headers={"ratio": 0.5, "list": [1, 2.5, None], "deep": {"a": True}})
        letter = await a_dead_letter(settings)
    assert letter.headers == {"ratio": 0.5, "list": [1, 2.5, None], "deep": {"a": True}}


def publish_with_pika(
    settings: Settings, headers: dict[str, Any], body: bytes = b'{"what":"reject"}', **properties: Any
) -> None:
    """Headers that aio-pika would not send."""
    connection = pika.BlockingConnection(pika.URLParameters(settings.url))
    made = pika.BasicProperties(headers=headers, delivery_mode=2, **properties)
    connection.channel().basic_publish(f"{settings.prefix}.jobs", "demo.act", body, made)
    connection.close()


class Instant(int):
    """A timestamp in milliseconds, written where AMQP wants seconds."""


async def test_a_timestamp_no_calendar_has_stops_neither_worker_nor_review(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = pika.data.encode_value

    def with_instants(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Instant):
            pieces.append(struct.pack(">cQ", b"T", value))
            return 9
        return encode(pieces, value)

    monkeypatch.setattr(pika.data, "encode_value", with_instants)
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await asyncio.to_thread(publish_with_pika, settings, {"at": Instant(1_753_900_000_000), "later": Instant(2**62)})
        await jobs.publish(Note(text="next"))
        await until(lambda: len(stage.seen) == 2)
        letter = await a_dead_letter(settings)
    assert letter.reason == "rejected"


async def test_a_type_too_long_for_the_ladder_is_malformed(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await publish_raw(settings, b"{}", key="demo.note", type="x" * 220)
        await publish_raw(settings, b"{}", key="demo.note", type="Not A Type")
        await jobs.publish(Act(what="fail twice"))  # its retries need the same connection
        await until(lambda: len(stage.seen) == 3)
        assert [letter.reason for letter in await dead_letters(settings)] == ["malformed message"] * 2


async def test_a_reply_nobody_waits_for_is_left_out(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        await jobs.publish(Note(text="a"), reply_to="nobody-here")
        await jobs.publish(Act(what="reject"), reply_to="nobody-here")
        await until(lambda: succeeded(settings))
        await a_dead_letter(settings)
    assert await depth(settings, "demo") == 0
    assert len(stage.seen) == 2


@pytest.mark.parametrize("how", ["half a character", "no text", "exit", "odd", "huge checkpoint"])
async def test_whatever_a_handler_raises_becomes_a_dead_letter(settings: Settings, how: str) -> None:
    worker = Worker(registry_of(misbehaving()), settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Bad(how=how))
        letter = await a_dead_letter(settings)
    assert letter.reason == "attempts exhausted"
    await worker.drain(timedelta(seconds=1))


async def test_whatever_a_handler_logs_or_returns_the_journal_goes_on(settings: Settings) -> None:
    worker = Worker(registry_of(misbehaving()), settings)
    await worker.start()
    async with publishing(settings) as jobs, raw_channel(settings) as channel:
        answers = await channel.declare_queue(exclusive=True)
        await jobs.publish(Bad(how="odd log"))
        await jobs.publish(Bad(how="bytes"), reply_to=answers.name)
        answer = await until(lambda: answers.get(no_ack=True, fail=False))
        await until(lambda: all_told(settings))
    assert json.loads(answer.body) == r"\xff\xd8"
    await worker.drain(timedelta(seconds=1))


async def all_told(settings: Settings) -> bool:
    kinds = [kind for kind, _ in await events(settings)]
    return (kinds.count("log"), kinds.count("succeeded")) == (2, 2)


async def test_bytes_in_headers_cross_into_a_child(settings: Settings) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Heavy(), headers={"raw": b"\xff\xfe"})
        await until(lambda: succeeded(settings))


async def test_jobs_behind_many_of_unknown_types_are_claimed(settings: Settings) -> None:
    stage = Stage()
    async with publishing(settings) as jobs:
        await jobs.publish_json("nobody.knows", {})
        async with raw_channel(settings) as channel:
            exchange = await channel.get_exchange(f"{settings.prefix}.jobs", ensure=False)
            for _ in range(6):
                await asyncio.gather(*(exchange.publish(aio_pika.Message(b"{}"), "nobody.knows") for _ in range(500)))
        await jobs.publish_many(Note(text="mine", n=n) for n in range(3))
        async with working(stage, settings):
            await until(lambda: len(stage.seen) == 3)
        assert await until(lambda: depth(settings, "unrouted")) == 3001


async def test_files_that_are_not_there_are_named_at_once(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="/no/ca"):
        AsyncPublisher("amqps://localhost/?cafile=/no/ca.pem")


async def test_a_done_job_whose_result_cannot_be_written_is_done(settings: Settings) -> None:
    worker = Worker(registry_of(misbehaving()), settings)
    await worker.start()
    async with publishing(settings) as jobs, raw_channel(settings) as channel:
        answers = await channel.declare_queue(exclusive=True)
        await jobs.publish(Bad(how="no repr"), reply_to=answers.name)
        answer = await until(lambda: answers.get(no_ack=True, fail=False))
    assert b"Unwritable" in answer.body
    await worker.drain(timedelta(seconds=1))
    assert await dead_letters(settings) == []


def test_a_publisher_starts_afresh_on_another_event_loop(settings: Settings) -> None:
    jobs = AsyncPublisher(settings=settings)
    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(jobs.publish(Note(text="a")), 10))
    asyncio.run(jobs.close())


async def test_a_handler_that_blocks_the_loop_is_named(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    plugin = Plugin("demo")

    @plugin.handler
    async def blocking(payload: Note) -> None:
        time.sleep(1.6)  # noqa: ASYNC251 - what is tested

    worker = Worker(registry_of(plugin), settings)
    await worker.start()
    async with publishing(settings) as jobs:
        await jobs.publish(Note(text="x"))
        (warning,) = await until(lambda: [each for each in caplog.records if "event loop is blocked" in each.message])
    await worker.drain(timedelta(seconds=5))
    assert warning.handler.endswith("blocking")
    assert "test_hostile.py:" in warning.at
    assert worker._watchdog.take_worst() > 1
