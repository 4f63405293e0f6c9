"""The scheduler's messages: what is written is read again, and nothing unknown is lost."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.errors import MalformedMessage
from rmqjobs.schedule import schedule_of
from rmqjobs.topology import Names
from rmqjobs.wire import headers as h
from rmqjobs.wire import scheduling as wire
from rmqjobs.wire.jobs import Message, decode
from rmqjobs.wire.scheduling import Entry, Token

NAMES = Names("x")
NOW = datetime(2026, 11, 24, 3, 0, 0, 123000, tzinfo=UTC)


@dataclass
class Received:
    """A message as it arrives."""

    body: bytes
    routing_key: str
    properties: Any = field(default_factory=SimpleNamespace)


def received(message: Message, **more: Any) -> Any:
    fields = (
        "content_type",
        "content_encoding",
        "priority",
        "correlation_id",
        "reply_to",
        "message_id",
        "timestamp",
        "type",
        "app_id",
    )
    properties = {name: getattr(message, name) for name in fields}
    return Received(message.body, message.routing_key, SimpleNamespace(**properties, headers=message.headers, **more))


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_a_token_comes_back_as_it_was(count: int) -> None:
    entries = {f"s{n}": Entry(cursor=NOW, ticked=NOW - timedelta(seconds=n), paused=bool(n % 2)) for n in range(count)}
    token = Token(version=7, at=NOW, by="a", entries=entries, added={"r": {"name": "r", "type": "a.b", "every": "PT1S"}})
    message = wire.token(NAMES, token)
    assert (message.exchange, message.routing_key) == ("", "x.scheduler")
    assert wire.read(received(message)) == token
    assert len(message.body) < 40_000


def test_fields_of_a_later_version_are_carried_along() -> None:
    body = {"version": 3, "colour": "blue", "entries": {"s": {"cursor": NOW.isoformat(), "mood": "good"}}}
    read = wire.read(received(Message("", "", json.dumps(body).encode(), type=wire.TOKEN)))
    again = wire.read(received(wire.token(NAMES, read)))  # type: ignore[arg-type]
    assert again.model_dump()["colour"] == "blue"  # type: ignore[union-attr]
    assert again.model_dump()["entries"]["s"]["mood"] == "good"  # type: ignore[union-attr]


def test_a_later_format_is_only_known_as_such() -> None:
    body = json.dumps({"format": 9, "entries": ["another", "shape"]}).encode()
    read = wire.read(received(Message("", "", body, type=wire.TOKEN)))
    assert isinstance(read, Token)
    assert (read.format, read.entries) == (9, {})


def test_a_tick_is_a_job_with_its_times() -> None:
    schedule = schedule_of({"name": "a.b", "type": "demo.note", "every": "1h", "payload": {"text": "ü"}})
    times = {"period_start": NOW - timedelta(hours=1), "expires_at": NOW + timedelta(hours=1)}
    message = wire.tick(NAMES, schedule, NOW, job_id=wire.tick_id("a.b", NOW), **times, reply_start=True, mark="m", now=NOW)  # type: ignore[arg-type]
    envelope = decode(received(message), max_body=1000)
    assert envelope.job.id == "a.b@2026-11-24T03:00:00.123000Z"
    assert (envelope.job.schedule, envelope.job.scheduled_for) == ("a.b", NOW)
    assert (envelope.job.period_start, envelope.expires_at) == (times["period_start"], times["expires_at"])
    assert json.loads(envelope.body) == {"text": "ü"}
    assert (message.reply_to, h.REPLY_START in envelope.job.headers) == ("x.scheduler", True)


@pytest.mark.parametrize(
    ("status", "body", "reason"), [("started", b"null", ""), ("done", b"[1]", ""), ("dead", b'{"reason": "x"}', "x")]
)
def test_a_workers_reply_is_a_report(status: str, body: bytes, reason: str) -> None:
    message = Message(
        "", "", body, type="demo.note", headers={h.STATUS: status}, correlation_id=wire.tick_id("a.b", NOW) + "!run"
    )
    report = wire.read(received(message))
    assert isinstance(report, wire.Report)
    assert (report.schedule, report.scheduled_for, report.status, report.reason) == ("a.b", NOW, status, reason)


def test_an_entry_that_cannot_be_read_is_carried_along() -> None:
    entries = {"good": {"cursor": NOW.isoformat(), "outcome": "of a later version"}, "bad": {"cursor": "2026-01-01T00:00:00"}}
    message = Message("", "", json.dumps({"version": 3, "entries": entries}).encode(), type=wire.TOKEN)
    for _ in range(2):
        token = wire.read(received(message))
        assert isinstance(token, Token)
        assert (list(token.entries), token.unread) == (["good"], {"bad": entries["bad"]})
        message = wire.token(NAMES, token)


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"version": "x"}', b"[" * 200_000, b'{"entries": 3}'])
def test_a_token_that_cannot_be_read_is_not_thrown_away(body: bytes) -> None:
    read = wire.read(received(Message("", "", body, type=wire.TOKEN)))
    assert isinstance(read, wire.Unreadable)
    assert len(read.because) < 400


def test_a_report_of_the_end_of_time_is_malformed() -> None:
    message = Message("", "", b"", headers={h.STATUS: "done"}, correlation_id="a.b@9999-12-31T23:59:59-14:00")
    with pytest.raises(MalformedMessage):
        wire.read(received(message))


def test_deep_nesting_is_malformed() -> None:
    for kind in (wire.COMMAND, wire.HELLO, "demo.note"):
        message = Message(
            "", "", b"[" * 200_000, type=kind, headers={h.STATUS: "dead"}, correlation_id=wire.tick_id("a.b", NOW)
        )
        with pytest.raises(MalformedMessage):
            wire.read(received(message))


@given(
    st.binary(max_size=200),
    st.sampled_from([wire.TOKEN, wire.BARRIER, wire.HELLO, wire.COMMAND, "demo.note", None, ""]),
    st.sampled_from([None, wire.DEFLATE, "gzip"]),
    st.dictionaries(st.sampled_from([h.STATUS, "x"]), st.sampled_from(["done", "dead", 3, None]), max_size=2) | st.none(),
    st.text(max_size=60) | st.none(),
)
def test_whatever_arrives_is_read_or_malformed(
    body: bytes, kind: str | None, encoding: str | None, headers: dict[str, Any] | None, correlation_id: str | None
) -> None:
    message = Message("", "", body, type=kind, content_encoding=encoding, headers=headers, correlation_id=correlation_id)
    try:
        wire.read(received(message))
    except MalformedMessage as error:
        assert "cannot be read" in str(error)
