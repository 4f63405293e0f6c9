"""Claims: a name belongs to the first owner that asks for it, in the whole cluster, with nothing but AMQP.

A claim is an exchange whose one argument is its owner. It may be declared again with the same owner, any number of times; with
another owner RabbitMQ refuses, and names the argument. It is metadata: it has no messages, no process and no home node, and it
outlives every crash. It does not go away by itself: whoever makes claims has to end them, with `release`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable

from rmqjobs.amqp.connection import Channel, Connection
from rmqjobs.errors import BrokerUnavailable, TopologyConflict
from rmqjobs.topology import Names

AT_ONCE = 16  # channels; one gives some 700 claims a second, this many give three times that


class Claims:
    """Takes claims on a connection, many at a time.

    Args:
        names: The prefix they live under.
        connection: Gives the one to use, called each time; None while there is none.
    """

    def __init__(self, names: Names, connection: Callable[[], Connection | None]) -> None:
        self._names, self._connection = names, connection
        self._idle: list[tuple[Connection, Channel]] = []
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def take(self, name: str, owner: str) -> bool:
        """Takes a claim, unless somebody has it; returns whether the name belongs to this owner.

        Raises:
            BrokerUnavailable: There is no connection.
            BrokerError: The broker refuses; the user may lack the permission.
        """
        async with self._slots:
            connection, channel = await self._channel()
            arguments = {"alternate-exchange": self._names.claim_owner(owner)}
            exchange = claim_of(self._names, name)
            try:
                await channel.call(
                    "exchange_declare", exchange=exchange, exchange_type="fanout", durable=True, arguments=arguments
                )
            except TopologyConflict:  # this has closed the channel
                return False
            self._idle.append((connection, channel))
            return True

    async def _channel(self) -> tuple[Connection, Channel]:
        connection = self._connection()
        if connection is None or connection.closed.done():
            raise BrokerUnavailable("there is no connection to claim on")
        while self._idle:
            former, channel = self._idle.pop()
            if former is connection and channel.is_open:
                return former, channel
        return connection, await connection.channel()


async def release(connection: Connection, names: Names, claims: Iterable[str]) -> None:
    """Ends claims, whoever owns them; those that nobody has made are ignored."""
    channel = await connection.channel()
    for name in claims:
        channel.tell("exchange_delete", exchange=claim_of(names, name))
    await channel.call("basic_qos", prefetch_count=1)  # after any answered call they are gone
    await channel.close()


def claim_of(names: Names, name: str) -> str:
    """The exchange of a claim; names of any length and characters fit."""
    return names.claim(hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=16).hexdigest())
