"""The message contract: test vectors any language can run, round trips, and what producers may not say."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.errors import InvalidJob, MalformedMessage
from rmqjobs.retry import Counters
from rmqjobs.topology import MAX_DELAY, Names
from rmqjobs.wire import headers as h
from rmqjobs.wire.ids import new_job_id
from rmqjobs.wire.jobs import Envelope, Message, Options, again, decode, encode, reply

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "jobs.json").read_text())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = Names()
LIMIT = 1000


@dataclass
class Received:
    body: bytes
    routing_key: str
    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    app_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def properties(self) -> "Received":
        return self


def received(message: Message) -> Received:
    """What a worker gets of a published message."""
    fields = {
        name: getattr(message, name) for name in Received.__dataclass_fields__ if name not in ("body", "routing_key", "extra")
    }
    return Received(message.body, message.routing_key, **fields)


def publish(**options: Any) -> Message:
    return encode(NAMES, "mail.send", b'{"n":1}', job_id="id-1", options=Options(**options), now=NOW, max_body=LIMIT)


def as_vector(envelope: Envelope) -> dict[str, Any]:
    def iso(at: datetime | None) -> str | None:
        return at.isoformat() if at else None

    found = {
        "id": envelope.job.id,
        "type": envelope.job.type,
        "attempt": envelope.counters.attempt,
        "crashes": envelope.counters.crashes or None,
        "unhandled": envelope.counters.unhandled or None,
        "state": envelope.job.state,
        "published_at": iso(envelope.job.published_at),
        "expires_at": iso(envelope.expires_at),
        "scheduled_for": iso(envelope.job.scheduled_for),
    }
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    message = Received(**{**vector["message"], "body": vector["message"]["body"].encode()})
    if "error" in vector:
        with pytest.raises(MalformedMessage) as caught:
            decode(message, max_body=LIMIT)
        assert vector["error"] in str(caught.value)
        return
    job = as_vector(decode(message, max_body=LIMIT))
    if "id" not in vector["job"]:
        assert len(job.pop("id")) == 36  # given on first receipt
    assert job == vector["job"]


def test_an_ordinary_job_has_no_headers() -> None:
    message = publish()
    assert (message.exchange, message.routing_key, message.headers) == ("rmqjobs.jobs", "mail.send", None)
    assert (message.message_id, message.type, message.content_type) == ("id-1", "mail.send", "application/json")


def test_a_delayed_job_enters_the_ladder_at_its_highest_level() -> None:
    message = publish(delay=timedelta(seconds=5))
    assert message.exchange == "rmqjobs.delay.02"
    assert message.routing_key == "0." * 25 + "1.0.1.mail.send"
    assert message.headers == {h.RUN_AT: int((NOW.timestamp() + 5) * 1000)}


@pytest.mark.parametrize("run_at", [NOW, NOW - timedelta(days=1)])
def test_a_run_at_that_has_come_means_now(run_at: datetime) -> None:
    assert publish(run_at=run_at).exchange == "rmqjobs.jobs"


def test_expiry_travels_in_a_header() -> None:
    envelope = decode(received(publish(expires=timedelta(minutes=1))), max_body=LIMIT)
    assert envelope.expires_at == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delay": timedelta(seconds=-1)}, "delay of -1 day"),
        ({"delay": MAX_DELAY + timedelta(seconds=1)}, "impossible"),
        ({"delay": timedelta(seconds=1), "run_at": NOW}, "not both"),
        ({"run_at": datetime(2027, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the point
        ({"expires": timedelta(0)}, "not in the future"),
        ({"priority": 32}, "priority=32"),
        ({"priority": -1}, "priority=-1"),
        ({"headers": {"rmqjobs-attempt": 9}}, "reserved"),
        ({"headers": {"x-death": []}}, "reserved"),
        ({"headers": {"a": object()}}, "AMQP cannot carry"),
        ({"headers": {"a": "x" * 200_000}}, "Put data into the payload"),
    ],
)
def test_what_can_never_be_published_is_refused_with_the_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        publish(**options)


def test_a_body_over_the_limit_is_refused_on_both_sides() -> None:
    with pytest.raises(InvalidJob, match=r"1,001 bytes.*1,000"):
        encode(NAMES, "mail.send", b"x" * 1001, job_id="1", options=Options(), now=NOW, max_body=LIMIT)
    with pytest.raises(MalformedMessage, match=r"1,001 bytes.*1,000"):
        decode(Received(b"x" * 1001, "mail.send"), max_body=LIMIT)


def run_again(message: Received, **changes: Any) -> Message:
    envelope = decode(message, max_body=LIMIT)
    arguments: dict[str, Any] = {"counters": Counters(2), "delay": timedelta(seconds=3), "queue": "mail", "now": NOW} | changes
    return again(NAMES, message, envelope, **arguments)


def test_a_retry_keeps_the_job_and_leaves_the_brokers_headers_behind() -> None:
    history = {"x-death": [{"count": 1}], "x-first-death-reason": "expired", "x-delivery-count": 2, "CC": ["elsewhere"]}
    message = Received(b"{}", "mail.send", headers={"tenant": "acme", **history}, correlation_id="c", priority=3, reply_to="r")
    later = run_again(message, failed=True)
    assert (later.body, later.correlation_id, later.priority, later.reply_to) == (b"{}", "c", 3, "r")
    assert later.headers == {
        "tenant": "acme",
        h.ATTEMPT: 2,
        h.RUN_AT: int(NOW.timestamp() * 1000) + 3000,
        h.FIRST_FAILED_AT: int(NOW.timestamp() * 1000),
    }


def test_a_job_without_an_id_keeps_the_one_it_was_given() -> None:
    first = run_again(Received(b"{}", "mail.send"))
    assert first.message_id
    assert run_again(received(first)).message_id == first.message_id


def test_without_a_delay_it_goes_straight_back_to_its_queue() -> None:
    back = run_again(Received(b"{}", "mail.send"), delay=timedelta(0))
    assert (back.exchange, back.routing_key, back.type) == ("", "rmqjobs.mail", "mail.send")


def test_a_checkpoint_travels() -> None:
    message = Received(b"{}", "mail.send")
    envelope = decode(message, max_body=LIMIT)
    envelope.job.state = {"page": 4}
    later = again(NAMES, message, envelope, counters=Counters(2), delay=timedelta(0), queue="mail", now=NOW)
    assert decode(received(later), max_body=LIMIT).job.state == {"page": 4}


def test_headers_that_would_break_the_frame_are_left_out_and_counted() -> None:
    later = run_again(Received(b"{}", "mail.send", headers={"huge": "x" * 120_000}))
    assert later.headers is not None
    assert "huge" not in later.headers
    assert later.headers["rmqjobs-headers-left-out"] == 1


def test_a_reply_carries_the_result_and_the_correlation() -> None:
    message = Received(b"{}", "mail.send", reply_to="answers", message_id="7")
    answer = reply(message, decode(message, max_body=LIMIT), "done", {"sent": 1, "odd": object}, max_body=LIMIT)
    assert (answer.exchange, answer.routing_key, answer.correlation_id) == ("", "answers", "7")
    assert json.loads(answer.body)["sent"] == 1
    assert answer.headers == {h.STATUS: "done"}


def test_a_result_that_no_message_can_carry_is_replaced_by_a_sentence() -> None:
    message = Received(b"{}", "mail.send", reply_to="answers", message_id="7")
    answer = reply(message, decode(message, max_body=LIMIT), "done", "x" * 2000, max_body=1000)
    assert json.loads(answer.body) == {"error": "the result is left out: its 2,002 bytes are more than a message can have"}
    assert answer.headers == {h.STATUS: "done", h.RESULT_LEFT_OUT: 2002}


def test_job_ids_are_ordered_by_time() -> None:
    ids = [new_job_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000


header_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = (
    st.sampled_from([h.ATTEMPT, h.CRASHES, h.EXPIRES_AT, h.CHECKPOINT, h.SCHEDULED_FOR, "x-delivery-count", "x-death"])
    | st.text()
)


@given(
    body=st.binary(max_size=50),
    key=st.text(max_size=80),
    headers=st.dictionaries(names, header_values, max_size=4),
    content_type=st.none() | st.text(),
    timestamp=st.none() | st.integers(0, 2**64 - 1),
)
def test_whatever_arrives_is_a_job_or_malformed(
    body: bytes, key: str, headers: dict[str, Any], content_type: str | None, timestamp: int | None
) -> None:
    message = Received(body, key, headers=headers, content_type=content_type, timestamp=timestamp)
    try:
        envelope = decode(message, max_body=LIMIT)
    except MalformedMessage:
        return
    assert envelope.body == body
    assert envelope.counters.attempt >= 1
