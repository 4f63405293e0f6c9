"""Runs one handler on one payload as a worker would, without a broker; for tests of plugins."""

from __future__ import annotations

from pydantic_core import from_json

from rmqjobs import payloads
from rmqjobs.execution import Pools, Run, run_alone
from rmqjobs.job import Job, Payload
from rmqjobs.plugin import Plugin
from rmqjobs.plugins import registry_of
from rmqjobs.wire.values import Json


async def run_job(plugin: Plugin, payload: Payload, job: Job | None = None) -> object:
    """Runs the handler in its pool; returns its result, or raises its exception.

    Args:
        plugin: Has the handler.
        payload: Its arguments; they are written as JSON and validated as a worker does.
        job: What the handler sees; by default a first attempt.
    """
    handler = registry_of(plugin).handler(payload.job_type)
    body = payloads.write(payload)
    pools = Pools(threads=1)
    try:
        job = job or Job("test", payload.job_type, max_attempts=handler.retry.max_attempts, queue=handler.queue)
        result = await run_alone(pools, Run(handler, handler.validate(body), body, job))
    finally:
        await pools.close()
    return from_json(result) if isinstance(result, Json) else result
