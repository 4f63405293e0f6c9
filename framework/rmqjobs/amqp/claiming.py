"""Claims jobs that were published before any worker knew their type: they wait in the queue of unrouted jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rmqjobs.amqp.connection import Connection
from rmqjobs.amqp.counting import count
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.errors import RmqJobsError
from rmqjobs.topology import Names
from rmqjobs.wire.jobs import job_type, kept_headers, resend

log = logging.getLogger("rmqjobs.claiming")

AT_MOST = 65_535  # other workers' jobs held while looking through the queue: the largest prefetch there is
_IDLE = 2.0


@dataclass(slots=True, eq=False)
class _Unrouted:
    body: bytes
    routing_key: str
    properties: Any


async def claim(connection: Connection, link: PublishLink, names: Names, types: Collection[str], timeout: timedelta) -> int:
    """Publishes every unrouted job of these types again, to the queue that is bound for it now; returns how many.

    It makes one pass: other jobs are held meanwhile, and go back in order. No job is acknowledged before its copy is confirmed.
    """
    channel = await connection.channel()
    waiting = (await count(channel, names.unrouted)).messages
    if not waiting:
        await channel.close()
        return 0
    await channel.call("basic_qos", prefetch_count=AT_MOST)
    seen = asyncio.Queue[tuple[Any, _Unrouted]]()
    channel.raw.basic_consume(
        names.unrouted,
        on_message_callback=lambda _channel, method, properties, body: seen.put_nowait(
            (method, _Unrouted(body, method.routing_key, properties))
        ),
    )
    sent, confirmed = 0, asyncio.Semaphore(0)
    for _ in range(waiting):
        try:
            async with asyncio.timeout(_IDLE):
                method, unrouted = await seen.get()
        except TimeoutError:  # another worker holds the rest, or we hold the most we can, of other types
            break
        kind = job_type(unrouted)
        if kind not in types:
            continue
        properties = unrouted.properties
        message = resend(unrouted, names.jobs, kind, kept_headers(unrouted), job_id=properties.message_id, kind=kind)
        link.send(message, timeout, _acknowledge(channel.raw, method.delivery_tag, confirmed))
        sent += 1
    for _ in range(sent):
        await confirmed.acquire()
    await channel.close()
    if sent:
        log.info("claimed unrouted jobs", extra={"jobs": sent})
    return sent


def _acknowledge(raw: Any, tag: int, confirmed: asyncio.Semaphore) -> Callable[[RmqJobsError | None], None]:
    def settled(error: RmqJobsError | None) -> None:
        if error is None and raw.is_open:
            raw.basic_ack(tag)
        confirmed.release()

    return settled
