"""Declares a topology: loops over the frozen values, in their order. Everything is idempotent.

A hundred declarations and bindings go out at once; one answer at the end says that all are done, or which one was refused.
"""

from __future__ import annotations

import logging

from rmqjobs.amqp.connection import Channel, Connection
from rmqjobs.amqp.counting import count
from rmqjobs.errors import BrokerError, PermissionMissing
from rmqjobs.topology import Binding, Exchange, Queue, Topology

log = logging.getLogger("rmqjobs.declaring")


async def declare(connection: Connection, topology: Topology, *, foundation: Topology | None = None) -> None:
    """Creates what is missing and removes obsolete bindings.

    Args:
        connection: The connection to declare on.
        topology: All of it.
        foundation: The part whose bindings are taken for granted if all its exchanges and queues are there. RabbitMQ 4 takes
            a millisecond for each binding, whether it is new or not.

    Raises:
        TopologyConflict: Something of that name exists with other arguments.
        PermissionMissing: The user may not configure it.
    """
    granted = frozenset(foundation.bindings if foundation and await _is_there(connection, foundation) else ())
    channel = await connection.channel()
    # The last exchange is the entrance: whoever sees it takes the rest for granted.
    *others, entrance = topology.exchanges
    for exchange in others:
        _declare_exchange(channel, exchange)
    for queue in filter(lambda queue: queue.essential, topology.queues):
        _declare_queue(channel, queue)
    optional = {queue.name for queue in topology.queues if not queue.essential}
    bindings = [each for each in topology.bindings if each.destination not in optional and each not in granted]
    _bind(channel, *(binding for binding in bindings if binding.source != entrance.name))
    _declare_exchange(channel, entrance)
    _bind(channel, *(binding for binding in bindings if binding.source == entrance.name))
    for binding in topology.obsolete:  # RabbitMQ's unbind has no form without an answer
        await channel.call("queue_unbind", queue=binding.destination, exchange=binding.source, routing_key=binding.key)
    await _until_done(channel)
    await channel.close()
    await _declare_optional(connection, topology)


async def _declare_optional(connection: Connection, topology: Topology) -> None:
    """Declares what jobs can do without: a stream may be down (on RabbitMQ 3.10 after a crash), or exist as another kind."""
    for queue in topology.queues:
        if queue.essential:
            continue
        channel = await connection.channel()
        try:
            _declare_queue(channel, queue)
            _bind(channel, *(binding for binding in topology.bindings if binding.destination == queue.name))
            await _until_done(channel)
            await channel.close()
        except BrokerError as error:
            if connection.closed.done():
                raise
            log.warning("continuing without this queue", extra={"queue": queue.name, "because": str(error)})


async def stranded(connection: Connection, topology: Topology) -> dict[str, int]:
    """Former queues of handlers that moved, with the number of jobs that wait there while nobody consumes them."""
    found: dict[str, int] = {}
    ours = {queue.name for queue in topology.queues}
    for name in sorted({binding.destination for binding in topology.obsolete} - ours):
        channel = await connection.channel()
        try:
            counts = await count(channel, name)
        except BrokerError:  # there is no such queue: the usual case
            continue
        await channel.close()
        if counts.messages and not counts.consumers:
            found[name] = counts.messages
    return found


async def ensure(connection: Connection, entrance: str, topology: Topology) -> None:
    """Declares the topology unless its `entrance` exchange is there; for publishers, which start often and may do little."""
    channel = await connection.channel()
    try:
        await channel.call("exchange_declare", exchange=entrance, passive=True)
    except PermissionMissing:
        return  # a user who may only write cannot look; publishing will show
    except BrokerError:
        await declare(connection, topology)
    else:
        await channel.close()


async def _is_there(connection: Connection, topology: Topology) -> bool:
    """Whether all exchanges and essential queues exist; any that is missing closes the channel."""
    channel = await connection.channel()
    for exchange in topology.exchanges:
        channel.tell("exchange_declare", exchange=exchange.name, passive=True)
    for queue in topology.queues:
        if queue.essential:
            channel.tell("queue_declare", queue=queue.name, passive=True)
    try:
        await _until_done(channel)
    except BrokerError:
        if connection.closed.done():
            raise
        return False
    await channel.close()
    return True


async def _until_done(channel: Channel) -> None:
    """Waits for any answer: by then, everything told before is done, or has closed the channel."""
    await channel.call("basic_qos", prefetch_count=1)


def _declare_exchange(channel: Channel, exchange: Exchange) -> None:
    channel.tell(
        "exchange_declare",
        exchange=exchange.name,
        exchange_type=exchange.kind,
        durable=True,
        arguments=dict(exchange.arguments),
    )


def _declare_queue(channel: Channel, queue: Queue) -> None:
    channel.tell("queue_declare", queue=queue.name, durable=True, arguments=dict(queue.arguments))


def _bind(channel: Channel, *bindings: Binding) -> None:
    for each in bindings:
        if each.to_exchange:
            channel.tell("exchange_bind", destination=each.destination, source=each.source, routing_key=each.key)
        else:
            channel.tell("queue_bind", queue=each.destination, exchange=each.source, routing_key=each.key)
