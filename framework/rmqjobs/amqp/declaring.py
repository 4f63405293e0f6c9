"""Declares a topology: loops over the frozen values, in their order. Everything is idempotent."""

from __future__ import annotations

from rmqjobs.amqp.connection import Channel, Connection
from rmqjobs.errors import BrokerError, PermissionMissing
from rmqjobs.topology import Binding, Exchange, Topology


async def declare(connection: Connection, topology: Topology) -> None:
    """Creates what is missing and removes obsolete bindings.

    Raises:
        TopologyConflict: Something of that name exists with other arguments.
        PermissionMissing: The user may not configure it.
    """
    channel = await connection.channel()
    # The last exchange is the entrance: whoever sees it takes the rest for granted.
    *others, entrance = topology.exchanges
    for exchange in others:
        await _declare_exchange(channel, exchange)
    for queue in topology.queues:
        await channel.call("queue_declare", queue=queue.name, durable=True, arguments=dict(queue.arguments))
    for binding in topology.bindings:
        if binding.source != entrance.name:
            await _bind(channel, binding)
    await _declare_exchange(channel, entrance)
    for binding in topology.bindings:
        if binding.source == entrance.name:
            await _bind(channel, binding)
    for binding in topology.obsolete:
        await channel.call("queue_unbind", queue=binding.destination, exchange=binding.source, routing_key=binding.key)
    await channel.close()


async def ensure(connection: Connection, entrance: str, topology: Topology) -> None:
    """Declares the topology unless its `entrance` exchange is there: for publishers, that start often and may do little."""
    channel = await connection.channel()
    try:
        await channel.call("exchange_declare", exchange=entrance, passive=True)
    except PermissionMissing:
        return  # a user who may only write cannot look: publishing tells
    except BrokerError:
        await declare(connection, topology)
    else:
        await channel.close()


async def _declare_exchange(channel: Channel, exchange: Exchange) -> None:
    await channel.call(
        "exchange_declare",
        exchange=exchange.name,
        exchange_type=exchange.kind,
        durable=True,
        arguments=dict(exchange.arguments),
    )


async def _bind(channel: Channel, binding: Binding) -> None:
    if binding.to_exchange:
        await channel.call("exchange_bind", destination=binding.destination, source=binding.source, routing_key=binding.key)
    else:
        await channel.call("queue_bind", queue=binding.destination, exchange=binding.source, routing_key=binding.key)
