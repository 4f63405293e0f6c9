"""Publishes on a channel of its own, beside somebody else's: whatever the broker says to it, the other channel never hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from rmqjobs.amqp.connection import Connection
from rmqjobs.amqp.outlet import Outlet
from rmqjobs.errors import BrokerGone, PublishTimeout
from rmqjobs.wire.jobs import Message


class SideLink:
    """A channel on a connection that somebody else keeps up; opened again when it is needed and gone.

    Args:
        connection: The connection to use, asked for each time; None while there is none.
    """

    def __init__(self, connection: Callable[[], Connection | None]) -> None:
        self._connection = connection
        self._outlet: Outlet | None = None
        self._opening = asyncio.Lock()

    async def publish(self, message: Message, timeout: timedelta) -> None:
        """Publishes one message and waits for its confirm.

        Raises:
            PublishError: It is not known to be in RabbitMQ.
            BrokerError: The broker refuses it, such as for a missing permission.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                outlet = await self._open()
                failures = await outlet.publish([message])
        except TimeoutError:
            raise PublishTimeout(f"no confirm within {timeout.total_seconds():g} s") from None
        if failures:
            raise failures[0]

    async def _open(self) -> Outlet:
        async with self._opening:
            if self._outlet is None or self._outlet.lost.done():
                connection = self._connection()
                if connection is None or connection.closed.done():
                    raise BrokerGone("there is no connection")
                outlet = Outlet(connection, await connection.channel())
                await outlet.open()
                self._outlet = outlet
            return self._outlet
