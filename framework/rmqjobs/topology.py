"""The one place with exchange, queue and binding names and their arguments. Floor 3: pure values, no I/O.

`build` gives the whole topology of a set of handlers, frozen; adapters loop over it. Only values that never change are
arguments: RabbitMQ refuses to redeclare with others. The delay ladder (28 levels, level n waits 2**n seconds) lives here too:
a job's delay in seconds, written as 28 binary digits in its routing key, picks the levels at which it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rmqjobs.job import Handler, Pool, default_queue

LADDER_LEVELS = 28
MAX_DELAY = timedelta(seconds=2**LADDER_LEVELS - 1)
# -1 means unlimited on 4.x and destroys the message at its first requeue on 3.10; a large number works everywhere.
NO_DELIVERY_LIMIT = 2_000_000_000
# Our own crash count ends a crash loop long before this; it catches jobs that kill even the parent of their isolated run.
WORK_DELIVERY_LIMIT = 100
# Part of version 1, not settings: a process with another value would be refused by the broker.
JOURNAL_MAX_AGE = timedelta(days=7)
JOURNAL_MAX_BYTES = 10**9
CONTROL_MAX_BYTES = 2 * 10**8  # no limit by age: a pause counts until somebody ends it
DROPPED_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: str = "topic"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue; its type is in the arguments. Jobs still run without one that is not essential."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    essential: bool = True


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue, or to another exchange."""

    source: str
    key: str
    destination: str
    to_exchange: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """What is declared, in this order; then `obsolete` bindings are removed."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    obsolete: tuple[Binding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            self.exchanges + other.exchanges,
            self.queues + other.queues,
            self.bindings + other.bindings,
            self.obsolete + other.obsolete,
        )


@dataclass(frozen=True, slots=True)
class Names:
    """Every name, made from the prefix."""

    prefix: str = "rmqjobs"

    @property
    def jobs(self) -> str:
        """Exchange every producer publishes to."""
        return f"{self.prefix}.jobs"

    @property
    def unrouted(self) -> str:
        """Exchange and queue of jobs that no queue is bound for."""
        return f"{self.prefix}.unrouted"

    @property
    def due(self) -> str:
        """Exchange behind the last level of the ladder."""
        return f"{self.prefix}.due"

    @property
    def dead(self) -> str:
        """Exchange of dead letters; routing key = work queue."""
        return f"{self.prefix}.dead"

    @property
    def dropped(self) -> str:
        """Queue of dropped dead letters, kept for a while."""
        return f"{self.prefix}.dropped"

    @property
    def events(self) -> str:
        """Exchange of journal batches."""
        return f"{self.prefix}.events"

    @property
    def journal(self) -> str:
        """Stream that holds those batches."""
        return f"{self.prefix}.journal"

    @property
    def control(self) -> str:
        """Stream of what operators say."""
        return f"{self.prefix}.control"

    @property
    def scheduler(self) -> str:
        """Queue of the scheduler's token, and its mailbox."""
        return f"{self.prefix}.scheduler"

    def claim(self, digest: str) -> str:
        """Exchange that stands for a claim."""
        return f"{self.prefix}.claim.{digest}"

    def claim_owner(self, owner: str) -> str:
        """How a claim names its owner: as an exchange that is never declared."""
        return f"{self.prefix}.claim.by.{owner}"

    def delay(self, level: int) -> str:
        """Exchange and queue of one ladder level."""
        return f"{self.prefix}.delay.{level:02}"

    def queue(self, queue: str) -> str:
        """A work queue."""
        return f"{self.prefix}.{queue}"

    def dead_queue(self, queue: str) -> str:
        """The dead-letter queue of a work queue."""
        return f"{self.prefix}.{queue}.dead"


def build(handlers: Iterable[Handler] = (), prefix: str = "rmqjobs") -> Topology:
    """The topology of these handlers; without any, what producers need."""
    names = Names(prefix)
    # Publishers take the jobs exchange as the sign that everything else is there, so it comes last.
    entrance = Exchange(names.jobs, arguments={"alternate-exchange": names.unrouted})
    topology = _core(names) + _ladder(names) + Topology((entrance,), (), ())
    by_queue: dict[str, list[Handler]] = {}
    for handler in handlers:
        by_queue.setdefault(handler.queue, []).append(handler)
    for queue in sorted(by_queue):
        topology += _work(names, queue, by_queue[queue])
    return topology


def scheduling(prefix: str = "rmqjobs") -> Topology:
    """What a scheduler needs besides `build()`: the queue of its token.

    The queue has no delivery limit in practice: the token is delivered again at each failover and must never be dropped.
    """
    arguments = _quorum({"x-single-active-consumer": True, "x-delivery-limit": NO_DELIVERY_LIMIT})
    return Topology((), (Queue(Names(prefix).scheduler, arguments),), ())


def delay_route(names: Names, delay: timedelta, job_type: str) -> tuple[str, str]:
    """Exchange and routing key for a job that is due after `delay`, rounded up to whole seconds; it must be more than zero.

    The job enters at its highest level, so it passes through no exchange that it does not need.
    """
    seconds = whole_seconds(delay)
    digits = f"{seconds:0{LADDER_LEVELS}b}"
    return names.delay(seconds.bit_length() - 1), f"{'.'.join(digits)}.{job_type}"


def whole_seconds(delay: timedelta) -> int:
    """The delay rounded up: a job is never early."""
    return -(-delay // timedelta(seconds=1))


def consumer_arguments(handlers: Iterable[Handler]) -> dict[str, Any]:
    """Arguments of the consumer of these handlers' queue: how long a delivery may stay unacknowledged (RabbitMQ 3.12+).

    A job waits in the worker before it runs, so the limit is twice the longest `max_runtime` and some minutes.
    """
    longest = max(handler.max_runtime for handler in handlers)
    return {"x-consumer-timeout": milliseconds(2 * longest + timedelta(minutes=5))}


def job_type_of_key(routing_key: str) -> str:
    """The job type in a routing key, with or without the ladder's digits before it."""
    parts = routing_key.split(".", LADDER_LEVELS)
    digits = parts[:LADDER_LEVELS]
    if len(parts) > LADDER_LEVELS and all(digit in ("0", "1") for digit in digits):
        return parts[LADDER_LEVELS]
    return routing_key


def _core(names: Names) -> Topology:
    journal = {
        "x-queue-type": "stream",
        "x-max-age": f"{JOURNAL_MAX_AGE.days}D",
        "x-max-length-bytes": JOURNAL_MAX_BYTES,
        # Old records are removed a segment at a time, so a segment is a small part of the whole.
        "x-stream-max-segment-size-bytes": JOURNAL_MAX_BYTES // 20,
    }
    control = {
        "x-queue-type": "stream",
        "x-max-length-bytes": CONTROL_MAX_BYTES,
        "x-stream-max-segment-size-bytes": CONTROL_MAX_BYTES // 20,
    }
    dropped = {"x-delivery-limit": NO_DELIVERY_LIMIT, "x-message-ttl": milliseconds(DROPPED_FOR)}
    return Topology(
        exchanges=(Exchange(names.unrouted, "fanout"), Exchange(names.dead), Exchange(names.events)),
        queues=(
            Queue(names.unrouted, _quorum({"x-delivery-limit": NO_DELIVERY_LIMIT})),
            Queue(names.dropped, _quorum(dropped)),
            Queue(names.journal, journal, essential=False),
            Queue(names.control, control, essential=False),
        ),
        bindings=(Binding(names.unrouted, "", names.unrouted), Binding(names.events, "#", names.journal)),
    )


def _ladder(names: Names) -> Topology:
    """At level n, a job with bit n set waits in the queue; any other goes on to level n-1. After level 0 the job is due."""
    exchanges = [Exchange(names.due, arguments={"alternate-exchange": names.unrouted})]
    queues, bindings = [], []
    for level in range(LADDER_LEVELS):
        below = names.delay(level - 1) if level else names.due
        skipped = "*." * (LADDER_LEVELS - 1 - level)
        exchanges.append(Exchange(names.delay(level)))
        queues.append(
            Queue(
                names.delay(level),
                _dead_lettering(below) | {"x-message-ttl": milliseconds(timedelta(seconds=2**level))},
            )
        )
        bindings.append(Binding(names.delay(level), f"{skipped}1.#", names.delay(level)))
        bindings.append(Binding(names.delay(level), f"{skipped}0.#", below, to_exchange=True))
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def _work(names: Names, queue: str, handlers: list[Handler]) -> Topology:
    name = names.queue(queue)
    arguments = _dead_lettering(names.dead) | {
        "x-dead-letter-routing-key": queue,
        "x-delivery-limit": WORK_DELIVERY_LIMIT,
    }
    if any(handler.singleton for handler in handlers):
        arguments["x-single-active-consumer"] = True
    dead = _quorum({"x-single-active-consumer": True, "x-delivery-limit": NO_DELIVERY_LIMIT})
    types = sorted(handler.job_type for handler in handlers)
    return Topology(
        exchanges=(),
        queues=(Queue(name, arguments), Queue(names.dead_queue(queue), dead)),
        bindings=(
            Binding(names.dead, queue, names.dead_queue(queue)),
            *(binding for job_type in types for binding in _routes(names, job_type, name)),
        ),
        obsolete=tuple(
            binding
            for handler in handlers
            for former in _former_queues(handler)
            for binding in _routes(names, handler.job_type, names.queue(former))
        ),
    )


def _routes(names: Names, job_type: str, queue: str) -> tuple[Binding, Binding]:
    return Binding(names.jobs, job_type, queue), Binding(names.due, "*." * LADDER_LEVELS + job_type, queue)


def _former_queues(handler: Handler) -> list[str]:
    """Default queues this handler would have with other options. If they were still bound, each job would run twice."""
    candidates = [default_queue(handler.plugin, pool) for pool in Pool] + [handler.job_type]
    return [queue for queue in candidates if queue != handler.queue]


def _quorum(more: Mapping[str, Any]) -> dict[str, Any]:
    return {"x-queue-type": "quorum", **more}


def _dead_lettering(exchange: str) -> dict[str, Any]:
    """Arguments for at-least-once dead-lettering, which needs both strategy and overflow; by default, messages can be lost."""
    return _quorum(
        {
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    )


def milliseconds(duration: timedelta) -> int:
    """RabbitMQ's unit; everywhere else durations are `timedelta`."""
    return duration // timedelta(milliseconds=1)
