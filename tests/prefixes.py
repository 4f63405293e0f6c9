"""Prefixes for tests, one after the other.

Declaring a topology and deleting it again costs RabbitMQ 3.10 two seconds of CPU, most of it for the 28 quorum queues of the
ladder. So many tests use a prefix: between two of them, what plugins have declared is deleted, and what waits anywhere is
purged. A prefix whose ladder was not empty is given up: what has left one level and not reached the next cannot be seen.
"""

import asyncio
import secrets
from dataclasses import dataclass, field

from rmqjobs.amqp.connection import Connection, connect
from rmqjobs.amqp.declaring import declare
from rmqjobs.amqp.management import Management
from rmqjobs.errors import BrokerError
from rmqjobs.settings import Settings
from rmqjobs.testing.broker import RunningBroker
from rmqjobs.topology import LADDER_LEVELS, Names, build


@dataclass
class Prefixes:
    """Those of one test process."""

    broker: RunningBroker
    _clean: list[str] = field(default_factory=list)

    def take(self) -> str:
        return self._clean.pop() if self._clean else f"test-{secrets.token_hex(4)}"

    def give_back(self, prefix: str) -> None:
        if self.broker.management_url is not None and asyncio.run(self._clear(prefix)):
            self._clean.append(prefix)
        else:
            asyncio.run(self._delete(prefix))

    def close(self) -> None:
        for prefix in self._clean:
            asyncio.run(self._delete(prefix))

    async def _clear(self, prefix: str) -> bool:
        """Whether the prefix is as good as new."""
        core = {queue.name for queue in build(prefix=prefix).queues if queue.essential}  # streams are made anew
        connection = await self._connect(prefix)
        try:
            names = await self._queues(prefix)
            if not core <= set(names):
                return False
            channel = await connection.channel()
            for name in set(names) - core:
                channel.tell("queue_delete", queue=name)
            ladder = [Names(prefix).delay(level) for level in range(LADDER_LEVELS)]
            purged = [(await channel.call("queue_purge", queue=name)).message_count for name in ladder]
            for name in core - set(ladder):
                await channel.call("queue_purge", queue=name)
            await declare(connection, build(prefix=prefix))  # a test may have unbound or deleted something
            return not any(purged)
        finally:
            await connection.close()

    async def _delete(self, prefix: str) -> None:
        names = set(await self._queues(prefix)) | {queue.name for queue in build(prefix=prefix).queues}
        connection = await self._connect(prefix)
        channel = await connection.channel()
        for name in names:
            channel.tell("queue_delete", queue=name)
        for exchange in build(prefix=prefix).exchanges:
            channel.tell("exchange_delete", exchange=exchange.name)
        await channel.call("basic_qos", prefetch_count=1)
        await connection.close()

    async def _queues(self, prefix: str) -> list[str]:
        if self.broker.management_url is None:
            return []
        api, vhost = Management(self.broker.management_url), Settings(url=self.broker.url).broker.vhost
        for tries_left in reversed(range(5)):
            try:
                return [name for name in await api.queues(vhost) if name.startswith(f"{prefix}.")]
            except BrokerError:  # 3.10 answers 500 when a queue goes away while it lists them
                if not tries_left:
                    raise
                await asyncio.sleep(0.5)
        raise AssertionError

    async def _connect(self, prefix: str) -> Connection:
        settings = Settings(url=self.broker.url, prefix=prefix)
        return await connect(settings.broker, name="between tests", heartbeat=settings.heartbeat)
