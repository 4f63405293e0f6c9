"""The publisher of programs with an event loop."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import JsonValue

from rmqjobs.job import Payload
from rmqjobs.publisher.batch import publish_all
from rmqjobs.publisher.writing import Writer, id_of, link_of
from rmqjobs.settings import Settings
from rmqjobs.wire.jobs import Message, Options


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
        self._write = Writer(self._settings, app_id)
        self._link = link_of(self._settings)

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
        options = Options(delay, run_at, expires, priority, headers or {}, reply_to, correlation_id, self._write.app_id)
        return await self._publish(self._write.payload(payload, options, job_id))

    async def publish_json(self, job_type: str, data: JsonValue | bytes, *, job_id: str | None = None, **options: Any) -> str:
        """Publishes a job by its type, without a payload class; `data` is JSON bytes or JSON values. Otherwise as `publish`."""
        return await self._publish(self._write.json(job_type, data, job_id, **options))

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
        options = Options(delay, run_at, expires, priority, headers or {}, app_id=self._write.app_id)
        messages = (self._write.payload(payload, options) for payload in payloads)
        return await publish_all(self._link, messages, self._settings.publish_timeout)

    async def close(self) -> None:
        """Waits for what is outstanding and closes the connection."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        self._link.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _publish(self, message: Message) -> str:
        await self._link.publish(message, self._settings.publish_timeout)
        return id_of(message)
