"""Declares a topology: loops over the frozen values, in their order. Everything is idempotent."""

from __future__ import annotations

from rmqjobs.amqp.connection import Channel, Connection
from rmqjobs.errors import BrokerError, PermissionMissing
from rmqjobs.topology import Binding, Topology


async def declare(connection: Connection, topology: Topology) -> None:
    """Creates what is missing and removes obsolete bindings.

    Raises:
        TopologyConflict: Something of that name exists with other arguments.
        PermissionMissing: The user may not configure it.
    """
    channel = await connection.channel()
    # Exchanges and queues that a later exchange's arrival announces come first: the jobs exchange is the last of all.
    *others, entrance = topology.exchanges
    for exchange in others:
        await _declare_exchange(channel, exchange.name, exchange.kind, dict(exchange.arguments))
    for queue in topology.queues:
        await channel.call("queue_declare", queue=queue.name, durable=True, arguments=dict(queue.arguments))
    await _declare_exchange(channel, entrance.name, entrance.kind, dict(entrance.arguments))
    for binding in topology.bindings:
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


async def _declare_exchange(channel: Channel, name: str, kind: str, arguments: dict[str, object]) -> None:
    await channel.call("exchange_declare", exchange=name, exchange_type=kind, durable=True, arguments=arguments)


async def _bind(channel: Channel, binding: Binding) -> None:
    if binding.to_exchange:
        await channel.call("exchange_bind", destination=binding.destination, source=binding.source, routing_key=binding.key)
    else:
        await channel.call("queue_bind", queue=binding.destination, exchange=binding.source, routing_key=binding.key)
