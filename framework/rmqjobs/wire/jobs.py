"""Jobs as messages: `encode` for producers, `decode` for workers, `again` for jobs that are sent once more, `reply`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

from pydantic_core import to_json

from rmqjobs.errors import InvalidJob, MalformedMessage
from rmqjobs.job import Job, check_job_type, is_job_type
from rmqjobs.retry import Counters
from rmqjobs.topology import MAX_DELAY, Names, delay_route, job_type_of_key
from rmqjobs.wire import headers as h
from rmqjobs.wire.ids import new_job_id
from rmqjobs.wire.values import as_json

JSON = "application/json"
MAX_PRIORITY = 31
_NO_HEADERS: Mapping[str, Any] = {}
_FRESH = Counters()


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish; always persistent and mandatory."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str | None = None
    type: str | None = None
    headers: Mapping[str, Any] | None = None
    timestamp: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    content_type: str | None = JSON
    content_encoding: str | None = None


class Reply(Message):
    """The answer to a producer that set `reply_to`; perhaps nobody waits for it any more."""

    __slots__ = ()


class Properties(Protocol):
    """The properties of a received message, as pika names them; absent ones are None."""

    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any] | None
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None
    timestamp: int | None
    type: str | None
    app_id: str | None


class Incoming(Protocol):
    """A received message."""

    body: bytes
    routing_key: str

    @property
    def properties(self) -> Properties:
        """Its properties."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a job, besides its payload; see `Publisher.publish`."""

    delay: timedelta | None = None
    run_at: datetime | None = None
    expires: timedelta | None = None
    priority: int | None = None
    headers: Mapping[str, Any] | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    app_id: str | None = None


@dataclass(slots=True)
class Envelope:
    """A received job, taken apart.

    Args:
        job: As its handler will see it; its id is made here when the producer gave none.
        body: The payload's JSON, not yet validated.
        counters: Attempt of the run to come, crashes and unhandled receipts so far.
        expires_at: It must not start at or after this instant.
        mark: Mark of this publication, where the job may have been published twice.
    """

    job: Job
    body: bytes
    counters: Counters = _FRESH
    expires_at: datetime | None = None
    mark: str | None = None


def job_type(incoming: Incoming) -> str:
    """The job type of a message: its `type`, else its routing key without the ladder's digits."""
    return text_of(incoming.properties.type or job_type_of_key(incoming.routing_key))


def text_of(value: object) -> str:
    """A received string as text; one that is not UTF-8 arrives as bytes."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def encode(names: Names, kind: str, body: bytes, *, job_id: str, options: Options, now: datetime, max_body: int) -> Message:
    """The message of a new job.

    Raises:
        InvalidJob: Size, delay, expiry, priority, job type or a header is impossible; the error names the value and the limit.
    """
    if len(body) > max_body:
        raise InvalidJob(
            f"{kind}: the payload has {len(body):,} bytes, the limit is {max_body:,} (setting max_body)."
            " Store it elsewhere and publish its address"
        )
    try:
        check_job_type(kind)
    except ValueError as error:
        raise InvalidJob(str(error)) from None
    _check_short(kind, job_id=job_id, **{name: getattr(options, name) for name in ("correlation_id", "reply_to", "app_id")})
    exchange, key, headers = names.jobs, kind, _headers(kind, options, now)
    wait = _wait(kind, options, now)
    if wait > timedelta(0):
        exchange, key = delay_route(names, wait, kind)
        headers[h.RUN_AT] = h.milliseconds(now + wait)
    return Message(
        exchange,
        key,
        body,
        message_id=job_id,
        type=kind,
        headers=headers or None,
        timestamp=int(now.timestamp()),
        priority=_priority(kind, options.priority),
        correlation_id=options.correlation_id,
        reply_to=options.reply_to,
        app_id=options.app_id,
    )


def decode(incoming: Incoming, *, max_body: int) -> Envelope:
    """Takes a received message apart.

    Raises:
        MalformedMessage: It breaks the contract; the error says where.
    """
    properties = incoming.properties
    if len(incoming.body) > max_body:
        raise MalformedMessage(f"the body has {len(incoming.body):,} bytes, the limit is {max_body:,} (setting max_body)")
    if properties.content_type is not None and properties.content_type != JSON:
        _check_content_type(properties.content_type)
    if properties.content_encoding not in (None, "", "utf-8", "identity"):
        raise MalformedMessage(f"content_encoding is {properties.content_encoding!r}: bodies are plain UTF-8 JSON")
    kind = job_type(incoming)
    if not is_job_type(kind):
        raise MalformedMessage(f"{kind!r:.80} is not a job type. See the message contract")
    job = Job(text_of(properties.message_id or new_job_id()), kind)
    if properties.timestamp is not None:
        job.published_at = _timestamp(properties.timestamp)
    if properties.correlation_id is not None:
        job.correlation_id = text_of(properties.correlation_id)
    envelope = Envelope(job, incoming.body)
    if properties.headers:
        _read_headers(envelope, properties.headers)
    return envelope


def again(
    names: Names,
    incoming: Incoming,
    envelope: Envelope,
    *,
    counters: Counters,
    delay: timedelta,
    queue: str,
    now: datetime,
    failed: bool = False,
) -> Message:
    """The same job for a later run: by way of the delay ladder, or straight to its queue when there is no delay."""
    job, headers = envelope.job, kept_headers(incoming) | _counter_headers(counters)
    if job.state is not None:
        headers[h.CHECKPOINT] = to_json(job.state).decode()
    if failed and h.FIRST_FAILED_AT not in headers:
        headers[h.FIRST_FAILED_AT] = h.milliseconds(now)
    exchange, key = "", names.queue(queue)
    if delay > timedelta(0):
        delay = min(delay, MAX_DELAY)
        exchange, key = delay_route(names, delay, job.type)
        headers[h.RUN_AT] = h.milliseconds(now + delay)
    return resend(incoming, exchange, key, headers, job_id=job.id, kind=job.type)


def resend(
    incoming: Incoming, exchange: str, key: str, headers: dict[str, Any], *, job_id: str | None, kind: str | None
) -> Message:
    """A received message as a new one: body and properties stay, except `user_id` and `expiration`, which would harm it."""
    properties = incoming.properties
    return Message(
        exchange,
        key,
        incoming.body,
        message_id=job_id,
        type=kind,
        headers=h.fit(headers) or None,
        timestamp=properties.timestamp,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        app_id=properties.app_id,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
    )


def smaller(message: Message) -> Message | None:
    """The message with less in it, for one that AMQP or this broker cannot carry; None when nothing more can be left out.

    First the headers that are not ours are left out, then those that only people read. A reply becomes one that says how
    large it was.
    """
    if isinstance(message, Reply):
        size = len(message.body)
        return None if h.RESULT_LEFT_OUT in (message.headers or _NO_HEADERS) else _without_result(message, size)
    headers = message.headers or _NO_HEADERS
    ours = {name: value for name, value in headers.items() if h.is_ours(name)}
    if len(ours) < len(headers):
        return replace(message, headers=ours | {h.HEADERS_LEFT_OUT: len(headers) - len(ours)})
    if h.TRACEBACK in headers:
        return replace(message, headers={name: value for name, value in ours.items() if name not in h.FOR_PEOPLE})
    return None


def kept_headers(incoming: Incoming) -> dict[str, Any]:
    """The headers that travel on: all but the broker's."""
    received = incoming.properties.headers or _NO_HEADERS
    return {name: value for name, value in received.items() if not h.is_brokers(name)}


def is_same(one: Incoming, other: Incoming) -> bool:
    """Whether both are the same message, handed out twice; never for messages without an id."""
    job_id = one.properties.message_id
    return (
        job_id is not None
        and job_id == other.properties.message_id
        and one.body == other.body
        and kept_headers(one) == kept_headers(other)
    )


def reply(incoming: Incoming, envelope: Envelope, status: str, result: object, *, max_body: int) -> Reply:
    """The answer for a producer that set `reply_to`. What JSON cannot express becomes its text form."""
    properties = incoming.properties
    answer = Reply(
        "",
        properties.reply_to or "",
        as_json(result),
        message_id=new_job_id(),
        type=envelope.job.type,
        headers={h.STATUS: status},
        correlation_id=properties.correlation_id or envelope.job.id,
    )
    return answer if len(answer.body) <= max_body else _without_result(answer, len(answer.body))


def _without_result(answer: Reply, size: int) -> Reply:
    """A short answer that says how large the result was: whoever asked is waiting for one."""
    body = as_json({"error": f"the result is left out: its {size:,} bytes are more than a message can have"})
    return replace(answer, body=body, headers={**(answer.headers or {}), h.RESULT_LEFT_OUT: size})


def _counter_headers(counters: Counters) -> dict[str, Any]:
    values = {h.ATTEMPT: counters.attempt, h.CRASHES: counters.crashes, h.UNHANDLED: counters.unhandled}
    return {name: value for name, value in values.items() if name == h.ATTEMPT or value}


def _read_headers(envelope: Envelope, headers: Mapping[str, Any]) -> None:
    job = envelope.job
    job.headers = MappingProxyType(_named(headers))
    job.attempt = h.integer(headers, h.ATTEMPT, 1, least=1)
    envelope.counters = Counters(job.attempt, h.integer(headers, h.CRASHES, 0), h.integer(headers, h.UNHANDLED, 0))
    envelope.expires_at = h.instant(headers, h.EXPIRES_AT)
    if h.SCHEDULED_FOR in headers:
        job.schedule = text_of(headers[h.SCHEDULE]) if h.SCHEDULE in headers else None
        job.scheduled_for = h.instant(headers, h.SCHEDULED_FOR)
        job.period_start = h.instant(headers, h.PERIOD_START)
    if h.MARK in headers:
        envelope.mark = text_of(headers[h.MARK])
    h.instant(headers, h.FIRST_FAILED_AT)  # only for people, but it travels on: a wrong one is refused now
    job.state = h.checkpoint(headers)


def _named(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers with names that are text; one that is not UTF-8 arrives as bytes."""
    if all(isinstance(name, str) for name in headers):
        return headers
    return {text_of(name): value for name, value in headers.items()}


def _check_content_type(content_type: str) -> None:
    media_type, _, parameters = content_type.lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if media_type.strip() != JSON or charset not in ("", "charset=utf-8"):
        raise MalformedMessage(f"content_type is {content_type!r:.80}: it must be {JSON}, or absent")


def _timestamp(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # informative only: a strange clock elsewhere is no reason to refuse a job


def _check_short(kind: str, **properties: str | None) -> None:
    """AMQP writes the length of these in one byte."""
    for name, value in properties.items():
        if value is not None and not isinstance(value, str):
            raise InvalidJob(f"{kind}: {name} is {value!r:.80}, which is not text")
        try:
            size = len(value.encode()) if value is not None else 0
        except UnicodeEncodeError:
            raise InvalidJob(f"{kind}: {name} is {value!r:.80}, which UTF-8 cannot write") from None
        if size > h.MAX_SHORT_BYTES:
            raise InvalidJob(f"{kind}: {name} has {size:,} bytes, the limit is {h.MAX_SHORT_BYTES}")


def _headers(kind: str, options: Options, now: datetime) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    for name, value in (options.headers or _NO_HEADERS).items():
        if not isinstance(name, str):
            raise InvalidJob(f"{kind}: a header's name is {name!r}, which is not text")
        if h.is_ours(name) or h.is_brokers(name):
            raise InvalidJob(f"{kind}: header {name!r} is reserved. Use a name of your own without {h.OURS!r} before it")
        _check_short(kind, **{"a header's name": name})
        if problem := h.problem(value):
            raise InvalidJob(f"{kind}: header {name!r} {problem}")
        headers[name] = value
    if h.size(headers) > h.MAX_HEADER_BYTES:
        raise InvalidJob(f"{kind}: the headers have over {h.MAX_HEADER_BYTES:,} bytes. Put data into the payload")
    if options.expires is not None:
        _check_kind(kind, "expires", options.expires, timedelta)
        if options.expires <= timedelta(0):
            raise InvalidJob(f"{kind}: expires={options.expires} is not in the future")
        headers[h.EXPIRES_AT] = h.milliseconds(now + options.expires)
    return headers


def _wait(kind: str, options: Options, now: datetime) -> timedelta:
    if options.delay is not None and options.run_at is not None:
        raise InvalidJob(f"{kind}: give delay or run_at, not both")
    wait = options.delay or timedelta(0)
    _check_kind(kind, "delay", wait, timedelta)
    if options.run_at is not None:
        _check_kind(kind, "run_at", options.run_at, datetime)
        if options.run_at.tzinfo is None:
            raise InvalidJob(f"{kind}: run_at={options.run_at.isoformat()} has no time zone. Give an aware datetime")
        wait = max(options.run_at - now, timedelta(0))
    if not timedelta(0) <= wait <= MAX_DELAY:
        raise InvalidJob(f"{kind}: a delay of {wait} is impossible. Use 0 seconds to {MAX_DELAY.days:,} days")
    return wait


def _check_kind(kind: str, name: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted):
        raise InvalidJob(f"{kind}: {name}={value!r:.80} is not a {wanted.__name__}")


def _priority(kind: str, priority: int | None) -> int | None:
    if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= MAX_PRIORITY):
        raise InvalidJob(f"{kind}: priority={priority} is out of range. Use 0 (last) to {MAX_PRIORITY} (first)")
    return priority
