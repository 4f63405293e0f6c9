"""What producers use: `AsyncPublisher` on an event loop, `Publisher` in any program. Floor 6: one engine, two faces.

`publish` returns when RabbitMQ has confirmed the job, or raises within the deadline; there is no third way.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from rmqjobs.amqp.connection import Connection, connection_name
from rmqjobs.amqp.declaring import ensure
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.errors import InvalidJob, RmqJobsError
from rmqjobs.job import Payload
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, build
from rmqjobs.wire.jobs import Message, Options, encode, new_job_id

ResultT = TypeVar("ResultT")


class AsyncPublisher:
    """Publishes jobs from an event loop; use it with `async with`, or call `close` yourself.

    Args:
        url: The broker, as `amqp[s]://user:password@host[:port][,host2]/vhost`. Without it, and for all other settings, the
            `RMQJOBS_…` environment variables count.
        app_id: Name of the publishing program; travels in every job.
        settings: All settings at once, instead of `url`.
    """

    def __init__(self, url: str | None = None, *, app_id: str | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(flags={"url": url}, environ=os.environ)
        self._app_id = app_id
        self._names = Names(self._settings.prefix)
        self._link = PublishLink(
            lambda: self._settings.broker,
            name=connection_name("publisher"),
            heartbeat=self._settings.heartbeat,
            prepare=self._prepare,
        )

    async def publish(
        self,
        payload: Payload,
        *,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        expires: timedelta | None = None,
        priority: int | None = None,
        job_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """Publishes one job and returns its id once RabbitMQ has it.

        Args:
            payload: The typed arguments; its class carries the job type.
            delay: Run it this much later, to whole seconds, up to 8.5 years.
            run_at: Run it at this aware instant instead; a past one means now.
            expires: Drop it, with a record in the journal, if it has not started by then.
            priority: 0 to 31, higher first; only RabbitMQ 4 heeds it (two levels before 4.3).
            job_id: Your own id instead of a new UUIDv7, so that publishing again is recognisable.
            headers: Headers of your own, such as a trace context; they reach the handler.
            reply_to: A queue for the handler's result.
            correlation_id: Travels with the job and its reply.

        Raises:
            InvalidJob: The job can never be published.
            PublishError: It is not known to be in RabbitMQ within `publish_timeout`.
            BrokerError: The broker refuses us: password, virtual host, permissions.
        """
        options = Options(delay, run_at, expires, priority, headers or {}, reply_to, correlation_id, self._app_id)
        return await self._publish(_type_of(payload), _json_of(payload), job_id, options)

    async def publish_json(self, job_type: str, data: JsonValue | bytes, *, job_id: str | None = None, **options: Any) -> str:
        """Publishes a job by its type, without a payload class; `data` is JSON bytes or JSON values. Otherwise as `publish`."""
        made = Options(**{**options, "headers": options.get("headers") or {}, "app_id": self._app_id})
        return await self._publish(job_type, _json_bytes(job_type, data), job_id, made)

    async def publish_many(
        self,
        payloads: Iterable[Payload],
        *,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        expires: timedelta | None = None,
        priority: int | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Publishes many jobs, pipelined, and returns their ids once RabbitMQ has all of them.

        Raises:
            PublishError, BrokerError: As `publish`; some of the jobs may be queued. The error's `published` is the list of
                ids that are known to be.
        """
        options = Options(delay, run_at, expires, priority, headers or {}, app_id=self._app_id)
        batch = _Batch(asyncio.get_running_loop())
        for payload in payloads:
            await batch.room()
            job_id = new_job_id()
            try:
                message = self._encode(_type_of(payload), _json_of(payload), job_id, options)
            except InvalidJob as error:
                await batch.refuse(error)
                raise
            self._link.send(message, self._settings.publish_timeout, batch.expect(job_id))
        return await batch.all()

    async def close(self) -> None:
        """Waits for what is outstanding and closes the connection."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        self._link.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _publish(self, kind: str, body: bytes, job_id: str | None, options: Options) -> str:
        job_id = new_job_id() if job_id is None else job_id
        if not job_id:
            raise InvalidJob(f"{kind}: the job_id is empty. Give one, or none to have one made")
        await self._link.publish(self._encode(kind, body, job_id, options), self._settings.publish_timeout)
        return job_id

    def _encode(self, kind: str, body: bytes, job_id: str, options: Options) -> Message:
        now, max_body = datetime.now(UTC), self._settings.max_body
        try:
            return encode(self._names, kind, body, job_id=job_id, options=options, now=now, max_body=max_body)
        except (TypeError, AttributeError, OverflowError, ValueError) as error:
            raise InvalidJob(f"{kind}: an option has the wrong type or size: {error}") from error

    async def _prepare(self, connection: Connection) -> None:
        """A job must be safe before any worker ever ran, so the publisher sees to the exchanges itself."""
        if self._settings.declare:
            await ensure(connection, self._names.jobs, build(prefix=self._names.prefix))


class _Batch:
    """Counts the confirms of one `publish_many` and keeps the number of open ones bounded."""

    ROOM = 5000

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids: list[str] = []
        self._failed: dict[str, RmqJobsError] = {}
        self._open = 0
        self._wanted = 0
        self._wake: asyncio.Future[None] | None = None

    def expect(self, job_id: str) -> Any:
        self._ids.append(job_id)
        self._open += 1

        def settled(error: RmqJobsError | None) -> None:
            self._open -= 1
            if error is not None:
                self._failed[job_id] = error
            if self._wake is not None and not self._wake.done() and self._open <= self._wanted:
                self._wake.set_result(None)

        return settled

    async def room(self) -> None:
        """Waits while too many are open, and lets the loop breathe now and then."""
        if self._open >= self.ROOM:
            await self._until(self.ROOM // 2)
        elif len(self._ids) % 100 == 99:  # noqa: PLR2004 - often enough to read confirms while sending
            await asyncio.sleep(0)
        if self._failed:
            await self.all()

    async def all(self) -> list[str]:
        """The ids, once all are confirmed; raises the first failure."""
        await self._until(0)
        if self._failed:
            error = next(iter(self._failed.values()))
            await self.refuse(error)
            raise error
        return self._ids

    async def refuse(self, error: RmqJobsError) -> None:
        """Puts into the error which jobs are known to be queued all the same."""
        await self._until(0)
        error.published = [job_id for job_id in self._ids if job_id not in self._failed]  # type: ignore[attr-defined]

    async def _until(self, wanted: int) -> None:
        if self._open <= wanted:
            return
        self._wanted = wanted
        self._wake = self._loop.create_future()
        await self._wake
        self._wake = None


class Publisher:
    """Publishes jobs from any program: thread-safe, with heartbeats kept by a background thread of its own.

    Make one per process and keep it; use it with `with`, or call `close`. It connects at the first publish, and again by
    itself in a forked child. Arguments are those of `AsyncPublisher`, methods too, without `await`.
    """

    def __init__(self, url: str | None = None, *, app_id: str | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(flags={"url": url}, environ=os.environ)
        self._app_id = app_id
        self._lock = threading.Lock()
        self._engine: _Engine | None = None

    def publish(
        self,
        payload: Payload,
        *,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        expires: timedelta | None = None,
        priority: int | None = None,
        job_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        reply_to: str | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """Publishes one job and returns its id once RabbitMQ has it; see `AsyncPublisher.publish`."""
        engine = self._running()
        return engine.wait(
            engine.publisher.publish(
                payload,
                delay=delay,
                run_at=run_at,
                expires=expires,
                priority=priority,
                job_id=job_id,
                headers=headers,
                reply_to=reply_to,
                correlation_id=correlation_id,
            )
        )

    def publish_json(self, job_type: str, data: JsonValue | bytes, *, job_id: str | None = None, **options: Any) -> str:
        """Publishes a job by its type; see `AsyncPublisher.publish_json`."""
        engine = self._running()
        return engine.wait(engine.publisher.publish_json(job_type, data, job_id=job_id, **options))

    def publish_many(
        self,
        payloads: Iterable[Payload],
        *,
        delay: timedelta | None = None,
        run_at: datetime | None = None,
        expires: timedelta | None = None,
        priority: int | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Publishes many jobs, pipelined; see `AsyncPublisher.publish_many`."""
        engine = self._running()
        return engine.wait(
            engine.publisher.publish_many(
                payloads, delay=delay, run_at=run_at, expires=expires, priority=priority, headers=headers
            )
        )

    def close(self) -> None:
        """Waits for what is outstanding and closes the connection; harmless when it is closed."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None and engine.pid == os.getpid():
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _running(self) -> _Engine:
        with self._lock:
            if self._engine is None or self._engine.pid != os.getpid():  # a forked child has no thread and must not share
                self._engine = _Engine(self._settings, self._app_id)
            return self._engine


class _Engine:
    """An event loop on a thread, with an `AsyncPublisher` on it."""

    def __init__(self, settings: Settings, app_id: str | None) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rmqjobs-publisher", daemon=True)
        self._thread.start()
        self.publisher = self.wait(self._make(settings, app_id))

    def wait(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs a coroutine on the loop's thread and waits for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self.wait(self.publisher.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _make(settings: Settings, app_id: str | None) -> AsyncPublisher:
        return AsyncPublisher(app_id=app_id, settings=settings)


def _json_of(payload: Payload) -> bytes:
    try:
        return payload.__pydantic_serializer__.to_json(payload, by_alias=True)
    except ValueError as error:
        raise InvalidJob(f"{payload.job_type}: the payload cannot be written as JSON: {error}") from None


def _json_bytes(job_type: str, data: JsonValue | bytes) -> bytes:
    try:
        if isinstance(data, bytes):
            from_json(data)
            return data
        return to_json(data)
    except ValueError as error:
        raise InvalidJob(f"{job_type}: the payload is not JSON: {error}") from None


def _type_of(payload: Payload) -> str:
    if not payload.job_type:
        raise InvalidJob(
            f"{type(payload).__qualname__} has no job type. Give its class one: class {type(payload).__qualname__}"
            '(Payload, type="…")'
        )
    return payload.job_type
