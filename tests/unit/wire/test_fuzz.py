"""No message, however made: taking it apart gives an envelope or one of two errors, and every verdict can be written again."""

import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import BasicProperties
from pydantic import Field

from rmqjobs.amqp import tables
from rmqjobs.errors import InvalidPayload, MalformedMessage
from rmqjobs.failures import failure_of
from rmqjobs.job import Handler, Payload, Pool
from rmqjobs.retry import Counters, DeadReason
from rmqjobs.topology import Names
from rmqjobs.wire import deadletters, events, scheduling
from rmqjobs.wire.headers import ATTEMPT, CHECKPOINT, OURS
from rmqjobs.wire.jobs import Message, again, decode, job_type, resend

tables.correct_pika()
NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Fuzzed(Payload, type="fuzz.it"):
    n: int
    words: dict[str, list[str]] = Field(default_factory=dict)


HANDLER = Handler(print, Fuzzed, Pool.ASYNC, "fuzz")


@dataclass
class Received:
    """A message as pika hands it over."""

    body: bytes
    routing_key: str
    properties: Any = field(default_factory=BasicProperties)


def over_the_wire(properties: BasicProperties) -> BasicProperties:
    """Encoded as AMQP does and decoded again: what pika cannot write nobody can send through it."""
    received = BasicProperties()
    received.decode(b"".join(properties.encode()))
    return received


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES_OF_HEADERS = st.sampled_from([ATTEMPT, CHECKPOINT, f"{OURS}expires-at", f"{OURS}crashes", f"{OURS}scheduled-for",
                                    f"{OURS}schedule", f"{OURS}first-failed-at", "x-delivery-count", "x-death"])  # fmt: skip
PROPERTIES = st.builds(
    BasicProperties,
    content_type=st.none() | st.sampled_from(["application/json", "text/plain", "application/json; charset=latin1"]) | TEXT,
    content_encoding=st.none() | TEXT,
    headers=st.none() | st.dictionaries(NAMES_OF_HEADERS | TEXT, VALUES, max_size=5),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | TEXT,
    reply_to=st.none() | TEXT,
    message_id=st.none() | TEXT,
    timestamp=st.none() | st.integers(0, 2**63 - 1),
    type=st.none() | st.just("fuzz.it") | TEXT,
    app_id=st.none() | TEXT,
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())
BODIES = st.binary(max_size=200) | JSONS | st.just(b'{"n": 1}')
KEYS = st.just("fuzz.it") | TEXT | st.just(".".join("0" * 28) + ".fuzz.it")


@given(BODIES, KEYS, PROPERTIES)
@example(b"[" * 100_000, "fuzz.it", BasicProperties())
@example(b'{"a":' * 100_000, "fuzz.it", BasicProperties())
@example(b'{"n": ' + b"9" * 5_000 + b"}", "fuzz.it", BasicProperties())
@example(b'{"n": 1e400}', "fuzz.it", BasicProperties())
@example(b'\xef\xbb\xbf{"n": 1}', "fuzz.it", BasicProperties())
@example(b'"\\ud800"', "fuzz.it", BasicProperties(headers={CHECKPOINT: '"\\ud800"'}))
def test_every_message_is_a_job_or_one_of_two_errors(body: bytes, key: str, properties: BasicProperties) -> None:
    received = Received(body, key, over_the_wire(properties))
    assert isinstance(job_type(received), str)
    error: Exception
    try:
        envelope = decode(received, max_body=1_000_000)
        HANDLER.validate(envelope.body)
    except (MalformedMessage, InvalidPayload) as found:
        error = found
    else:
        error = ValueError("boom")
        sent = again(Names(), received, envelope, counters=Counters(2), delay=timedelta(seconds=3), queue="fuzz", now=NOW)
        can_be_sent(sent)
    assert str(error)
    cause = deadletters.Cause(DeadReason.MALFORMED, failure_of(error), 1, "fuzz", "worker")
    dead = deadletters.bury(Names(), received, cause, job_id="1", failed_at=NOW)
    can_be_sent(dead)
    can_be_sent(resend(received, "", "fuzz", {}, job_id=None, kind=None))


def can_be_sent(message: Message) -> None:
    """By AMQP: our headers have values that it can carry."""
    assert all(isinstance(name, str) for name in message.headers or {})
    BasicProperties(headers=dict(message.headers or {}), message_id=message.message_id).encode()


@given(st.binary(max_size=300) | JSONS)
def test_whatever_is_in_the_journal_reading_goes_on(body: bytes) -> None:
    assert all(event.kind for event in events.decode(body))


@given(BODIES, PROPERTIES)
def test_whatever_comes_to_the_schedulers_mailbox_is_read_or_malformed(body: bytes, properties: BasicProperties) -> None:
    received = Received(body, "q", over_the_wire(properties))
    with contextlib.suppress(MalformedMessage):
        assert scheduling.read(received) is not None


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"words":' * 500_000], ids=["lists", "objects"])
def test_depth_is_refused_before_it_costs_anything(body: bytes) -> None:
    """The parser stops at its limit of nesting: the rest of a deep body is not even read."""
    with pytest.raises(MalformedMessage, match=r"recursion limit exceeded at line 1 column [1-9]\d{0,3}$"):
        HANDLER.validate(body)


def test_size_is_refused_before_parsing() -> None:
    with pytest.raises(MalformedMessage, match="1,000,001 bytes"):
        decode(Received(b"[" * 1_000_001, "fuzz.it"), max_body=1_000_000)
