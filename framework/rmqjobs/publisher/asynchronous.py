"""The publisher of programs with an event loop."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self, Unpack

from pydantic import JsonValue

from rmqjobs.errors import PublisherClosed
from rmqjobs.job import Payload
from rmqjobs.publisher.batch import publish_all
from rmqjobs.publisher.writing import BatchOptions, PublishOptions, Writer, id_of, link_of
from rmqjobs.settings import Settings
from rmqjobs.tracking import AsyncTrackedJob
from rmqjobs.wire.jobs import Message


class AsyncPublisher:
    """Publishes jobs from an event loop; use it with `async with`, or call `close` yourself. A closed one stays closed.

    Args:
        url: The broker, as `amqp[s]://user:password@host[:port][,host2]/vhost`. Without it, and for all other settings, the
            `RMQJOBS_…` environment variables apply.
        app_id: Name of the publishing program; travels in every job.
        settings: All settings at once, instead of `url`.
    """

    def __init__(self, url: str | None = None, *, app_id: str | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(flags={"url": url}, environ=os.environ)
        self._write = Writer(self._settings, app_id)
        self._link = link_of(self._settings)
        self._closed = False

    async def publish(self, payload: Payload, **options: Unpack[PublishOptions]) -> str:
        """Publishes one job and returns its id once RabbitMQ has it.

        Args:
            payload: The typed arguments; its class carries the job type.
            options: See `PublishOptions`.

        Raises:
            InvalidJob: The job can never be published.
            PublishError: It is not known to be in RabbitMQ after `publish_timeout`.
            BrokerError: The broker refuses us: password, virtual host, permissions.
        """
        return await self._publish(self._write.payload(payload, **options))

    async def publish_json(self, job_type: str, data: JsonValue | bytes, **options: Unpack[PublishOptions]) -> str:
        """Publishes a job by its type, without a payload class; `data` is JSON bytes or JSON values. Otherwise as `publish`."""
        return await self._publish(self._write.json(job_type, data, **options))

    async def publish_many(self, payloads: Iterable[Payload], **options: Unpack[BatchOptions]) -> list[str]:
        """Publishes many jobs, pipelined, and returns their ids once RabbitMQ has all of them.

        Args:
            payloads: Their typed arguments.
            options: See `BatchOptions`; the same for all.

        Raises:
            PublishError, BrokerError: As `publish`; some of the jobs may be queued. The error's `published` is the list of
                the ids of those that are known to be.
        """
        self._check_open()
        return await publish_all(self._link, self._write.payloads(payloads, **options), self._settings.publish_timeout)

    def job(self, job_id: str) -> AsyncTrackedJob:
        """One job, wherever it is: its state, its result, its whole life, read from the journal."""
        return AsyncTrackedJob(self._settings, job_id)

    async def close(self) -> None:
        """Waits for outstanding jobs and closes the connection for good; harmless when it is closed already."""
        self._closed = True
        await self._link.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        self._link.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise PublisherClosed

    async def _publish(self, message: Message) -> str:
        self._check_open()
        await self._link.publish(message, self._settings.publish_timeout)
        return id_of(message)
