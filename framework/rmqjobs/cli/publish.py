"""`rmqjobs publish`: one job, from the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rmqjobs.cli.errors import say
from rmqjobs.cli.options import Common, as_duration
from rmqjobs.errors import ConfigurationError, InvalidJob, JobError, PluginError
from rmqjobs.job import is_job_type
from rmqjobs.plugins import installed, load
from rmqjobs.publisher import AsyncPublisher, PublishOptions
from rmqjobs.settings import Settings


def publish(
    job_type: str,
    data: Annotated[str, Parameter(allow_leading_hyphen=True)] = "{}",
    /,
    *,
    delay: str | None = None,
    at: str | None = None,
    expires: str | None = None,
    priority: int | None = None,
    job_id: str | None = None,
    validate: Annotated[bool, Parameter(negative="--no-validate")] = True,
    common: Common | None = None,
) -> None:
    """Publish one job and print its id once RabbitMQ has it.

    When an installed plugin handles the job type, the payload is validated first.

    Parameters
    ----------
    job_type
        Its job type, such as video.transcode.
    data
        The payload as JSON; @FILE reads a file, - reads stdin.
    delay
        Run it later, such as 24h.
    at
        Run it at this ISO 8601 instant, with a zone.
    expires
        Drop it if it has not started within this time, such as 10m.
    priority
        0 to 31, higher first.
    job_id
        An id of your own.
    validate
        Check the payload against an installed plugin's model.
    """
    settings = (common or Common()).settings()
    body = _read(data)
    if not is_job_type(job_type):
        raise InvalidJob(f"{job_type!r} is not a job type. Use lower-case words joined with dots, such as video.transcode")
    if validate:
        _validate(job_type, body, settings)
    options = PublishOptions(
        delay=_duration("--delay", delay),
        run_at=_instant(at),
        expires=_duration("--expires", expires),
        priority=priority,
        job_id=job_id,
    )
    sys.stdout.write(asyncio.run(_publish(settings, job_type, body, options)) + "\n")


async def _publish(settings: Settings, job_type: str, body: bytes, options: PublishOptions) -> str:
    async with AsyncPublisher(settings=settings, app_id="rmqjobs-cli") as jobs:
        return await jobs.publish_json(job_type, body, **options)


def _read(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise ConfigurationError("data", f"{data[1:]} cannot be read: {error}") from None
    return os.fsencode(data)


def _validate(job_type: str, body: bytes, settings: Settings) -> None:
    if not installed(settings.allowed_plugins):
        return
    try:
        handler = load(allowed=settings.allowed_plugins).handlers.get(job_type)
    except PluginError as error:
        say(f"published unchecked: {error}")
        return
    if handler is None:
        say(f"no installed plugin handles {job_type!r}: published unchecked, it waits until a worker does")
        return
    try:
        handler.validate(body)
    except JobError as error:
        raise InvalidJob(f"{error}. Correct the payload, or publish it as it is with --no-validate") from None


def _duration(option: str, text: str | None) -> timedelta | None:
    return None if text is None else as_duration(option, text)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigurationError(
            "--at", f"{text!r} is not an ISO 8601 time with a zone", "Write it as 2027-01-31T03:00:00+01:00"
        )
    return at
