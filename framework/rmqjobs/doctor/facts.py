"""Gathers what the doctor judges: over AMQP what any process of ours can see, the rest over the management API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from rmqjobs.amqp import management
from rmqjobs.amqp.connection import Channel, Connection, connect, connection_name
from rmqjobs.amqp.controlling import READ_WITHIN, ControlFeed, last_of
from rmqjobs.amqp.counting import count
from rmqjobs.control import Word
from rmqjobs.errors import BrokerError, ConfigurationError, PermissionMissing
from rmqjobs.events import Event
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, Topology
from rmqjobs.tracking.processes import latest_beats

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue as AMQP shows it."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class ManagementFacts:
    """What the management API reported.

    Args:
        alarms: Whether a memory or disk alarm is in effect.
        queues: By name, with `amqp.management.QUEUE_COLUMNS`.
        policies: All that exist, as far as the user may see them.
        operator_policies: The same for operator policies.
        bindings: Source, destination, routing key.
        permissions: The user's expressions for configure, write, read; None when it may not ask.
        disabled_features: Names of feature flags that are off.
        clock_difference: The broker's time minus ours.
    """

    alarms: bool
    queues: Mapping[str, Mapping[str, Any]]
    policies: Sequence[Mapping[str, Any]]
    operator_policies: Sequence[Mapping[str, Any]]
    bindings: frozenset[tuple[str, str, str]]
    permissions: tuple[str, str, str] | None
    disabled_features: tuple[str, ...]
    clock_difference: timedelta


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything gathered.

    Args:
        version: Version of the broker, as the broker gives it: `4.3.6`.
        release: Its major and minor number.
        queues: By name; those that do not exist are left out.
        missing_exchanges: Exchanges of the topology that do not exist.
        unseen: Names that this user may not look at.
        management: None when the API is not configured or not there.
        management_problem: Why `management` is None.
        paused: Paused queues, and by which word.
        deaf: Streams that cannot be read, and why.
        beats: The last beat of each process of the last minutes, by its name.
    """

    version: str
    release: tuple[int, int]
    queues: Mapping[str, QueueFacts]
    missing_exchanges: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    management: ManagementFacts | None = None
    management_problem: str = ""
    paused: Mapping[str, Word] = field(default_factory=dict)
    deaf: Mapping[str, str] = field(default_factory=dict)
    beats: Mapping[str, Event] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now().astimezone())


async def gather(settings: Settings, topology: Topology) -> Facts:
    """Looks at the broker, and changes nothing.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    connection = await connect(settings.broker, name=connection_name("doctor"), heartbeat=settings.heartbeat)
    try:
        unseen: list[str] = []
        names = [*(queue.name for queue in topology.queues), Names(settings.prefix).scheduler]
        queues = {name: found for name in names if (found := await _queue(connection, name, unseen)) is not None}
        exchanges = [each.name for each in topology.exchanges]
        missing = [name for name in exchanges if not await _exchange(connection, name, unseen) and name not in unseen]
        version, release = connection.version_text, connection.broker_version
        paused, deaf = await _streams(connection, Names(settings.prefix))
        api, problem = await _management(settings, connection)
    finally:
        await connection.close()
    return Facts(
        version, release, queues, tuple(missing), tuple(unseen), api, problem, paused, deaf, await latest_beats(settings)
    )


async def _streams(connection: Connection, names: Names) -> tuple[Mapping[str, Word], Mapping[str, str]]:
    """Paused queues, and streams that cannot be read; one that this user may not read is for others to look at."""
    feed, deaf = ControlFeed(names), {}
    for stream, reading in ((names.control, feed.follow), (names.journal, lambda one: last_of(one, names.journal))):
        try:
            async with asyncio.timeout(READ_WITHIN):
                await reading(connection)
        except PermissionMissing:
            continue
        except (BrokerError, TimeoutError) as error:
            if connection.closed.done():
                raise
            deaf[stream] = str(error) or "it does not answer"
    return feed.standing.paused(datetime.now(UTC)), deaf


async def _queue(connection: Connection, name: str, unseen: list[str]) -> QueueFacts | None:
    counts = await _look(connection, lambda channel: count(channel, name), name, unseen)
    return None if counts is None else QueueFacts(counts.messages, counts.consumers)


async def _exchange(connection: Connection, name: str, unseen: list[str]) -> bool:
    answer = await _look(
        connection, lambda channel: channel.call("exchange_declare", exchange=name, passive=True), name, unseen
    )
    return answer is not None


async def _look(
    connection: Connection, ask: Callable[[Channel], Coroutine[Any, Any, AnswerT]], name: str, unseen: list[str]
) -> AnswerT | None:
    """The broker's answer about what is there; None when it is not, or may not be looked at."""
    channel = await connection.channel()
    try:
        found = await ask(channel)
    except PermissionMissing:
        unseen.append(name)
        return None
    except BrokerError:
        if connection.closed.done():
            raise
        return None
    await channel.close()
    return found


async def _management(settings: Settings, connection: Connection) -> tuple[ManagementFacts | None, str]:
    vhost, user = settings.broker.vhost, settings.broker.user
    try:
        api = await management.find(settings, connection)
        if api is None:
            return None, "management_url is not set, and no API answers at the usual port beside the broker's"
        return ManagementFacts(
            alarms=await api.alarms(),
            clock_difference=await api.clock_difference(),
            queues=await api.queues(vhost),
            policies=await api.policies(vhost),
            operator_policies=await api.operator_policies(vhost),
            bindings=await api.bindings(vhost),
            permissions=await api.permissions(vhost, user),
            disabled_features=await api.disabled_features(),
        ), ""
    except (BrokerError, ConfigurationError) as error:
        return None, str(error)
