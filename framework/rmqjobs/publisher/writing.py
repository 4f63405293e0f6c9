"""Makes messages of what a producer gives, in any thread, and the link that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from pydantic import JsonValue

from rmqjobs import payloads
from rmqjobs.amqp.connection import Connection, connection_name
from rmqjobs.amqp.declaring import ensure
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.errors import InvalidJob
from rmqjobs.job import Payload
from rmqjobs.policywatch import PolicyWatch
from rmqjobs.publisher.announcing import Announcer
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, build
from rmqjobs.wire.ids import new_job_id
from rmqjobs.wire.jobs import Message, Options, encode


class BatchOptions(TypedDict, total=False):
    """Options of jobs, besides their payloads. None counts as not given.

    Keys:
        delay: Run it this much later, to whole seconds, up to 8.5 years.
        run_at: Run it at this aware instant instead; a past one means now.
        expires: Drop it, with a record in the journal, if it has not started by then.
        priority: 0 to 31, higher first; only RabbitMQ 4 respects it (two levels before 4.3).
        headers: Headers of your own, such as a trace context; they reach the handler.
    """

    delay: timedelta | None
    run_at: datetime | None
    expires: timedelta | None
    priority: int | None
    headers: Mapping[str, Any] | None


class PublishOptions(BatchOptions, total=False):
    """Options of one job; see also `BatchOptions`.

    Keys:
        job_id: Your own id instead of a new UUIDv7, so that publishing again is recognisable.
        reply_to: A queue for the handler's result.
        correlation_id: Travels with the job and its reply.
    """

    job_id: str | None
    reply_to: str | None
    correlation_id: str | None


class Writer:
    """Makes messages; thread-safe, without I/O.

    Args:
        settings: Prefix and limits.
        app_id: Name of the publishing program.
    """

    def __init__(self, settings: Settings, app_id: str | None) -> None:
        self._names, self._max_body, self._app_id = Names(settings.prefix), settings.max_body, app_id

    def payload(self, payload: Payload, job_id: str | None = None, **options: Any) -> Message:
        """The message of a typed job; raises `InvalidJob` when it can never be published."""
        return self._message(_type_of(payload), _json_of(payload), job_id, Options(**options, app_id=self._app_id))

    def payloads(self, payloads: Iterable[Payload], **options: Any) -> Iterator[Message]:
        """The messages of many typed jobs with the same options."""
        shared = Options(**options, app_id=self._app_id)
        return (self._message(_type_of(payload), _json_of(payload), None, shared) for payload in payloads)

    def json(self, job_type: str, data: JsonValue | bytes, job_id: str | None = None, **options: Any) -> Message:
        """The message of a job without a payload class; raises `InvalidJob` when it can never be published."""
        if not isinstance(job_type, str):
            raise InvalidJob(f"the job type is {job_type!r:.80}, which is not text")
        return self._message(job_type, _json_bytes(job_type, data), job_id, Options(**options, app_id=self._app_id))

    def _message(self, kind: str, body: bytes, job_id: str | None, options: Options) -> Message:
        job_id = new_job_id() if job_id is None else job_id
        if not job_id:
            raise InvalidJob(f"{kind}: the job_id is empty. Give one, or leave it out to have one made")
        now, max_body = datetime.now(UTC), self._max_body
        try:
            return encode(self._names, kind, body, job_id=job_id, options=options, now=now, max_body=max_body)
        except (TypeError, AttributeError, OverflowError, ValueError) as error:
            raise InvalidJob(f"{kind}: an option has the wrong type or size: {error}") from error


def link_of(settings: Settings) -> PublishLink:
    """The link of a publisher. A job must be safe before any worker ever ran, so the link declares what it needs itself."""
    names = Names(settings.prefix)

    async def prepare(connection: Connection) -> None:
        if settings.declare:
            await ensure(connection, names.jobs, build(prefix=names.prefix))

    announcer = Announcer(settings) if settings.journal_published else None

    async def beside(link: PublishLink) -> None:
        async with asyncio.TaskGroup() as tasks:
            if announcer is not None:
                tasks.create_task(announcer.run(link))
            if settings.management_url is not None:  # a program that publishes does not go looking for it
                tasks.create_task(PolicyWatch(settings).run(lambda: link.connection))

    return PublishLink(
        lambda: settings.broker,
        name=connection_name("publisher"),
        heartbeat=settings.heartbeat,
        prepare=prepare,
        beside=beside,
        on_published=announcer.published if announcer is not None else None,
    )


def id_of(message: Message) -> str:
    """The job id of a message that `Writer` made."""
    return str(message.message_id)


def _json_of(payload: Payload) -> bytes:
    try:
        return payloads.write(payload)
    except ValueError as error:
        raise InvalidJob(f"{payload.job_type}: the payload cannot be written as JSON: {error}") from None


def _json_bytes(job_type: str, data: JsonValue | bytes) -> bytes:
    try:
        return payloads.write_json(data)
    except ValueError as error:
        raise InvalidJob(f"{job_type}: the payload is not JSON: {error}") from None


def _type_of(payload: Payload) -> str:
    if not isinstance(payload, Payload):
        raise InvalidJob(f"{payload!r:.80} is not a payload. Give an instance of a Payload class, or use publish_json")
    if not payload.job_type:
        raise InvalidJob(
            f"{type(payload).__qualname__} has no job type. Give its class one: class {type(payload).__qualname__}"
            '(Payload, type="…")'
        )
    return payload.job_type
