"""The worker as a service: starts, keeps its consumers, and drains."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import JsonValue

from rmqjobs.amqp.claiming import claim
from rmqjobs.amqp.claims import Claims
from rmqjobs.amqp.connection import Connection, connection_name
from rmqjobs.amqp.consuming import ConsumeLink
from rmqjobs.amqp.declaring import declare, stranded
from rmqjobs.amqp.leases import Subscription
from rmqjobs.amqp.publishing import PublishLink
from rmqjobs.beats import Beats
from rmqjobs.errors import BrokerError, Interrupted
from rmqjobs.events import EventKind
from rmqjobs.execution import Pools, Recycle, keep_limits
from rmqjobs.job import Handler, Pool
from rmqjobs.journal import Journal
from rmqjobs.machine import sizes
from rmqjobs.plugins import Registry
from rmqjobs.policywatch import PolicyWatch
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, build, consumer_arguments
from rmqjobs.worker.ahead import Ahead
from rmqjobs.worker.case import Case
from rmqjobs.worker.chronicle import Chronicle
from rmqjobs.worker.figures import Figures
from rmqjobs.worker.intake import Intake
from rmqjobs.worker.lookout import Lookout
from rmqjobs.worker.orders import Orders
from rmqjobs.worker.path import JobPath
from rmqjobs.worker.presence import MOST_NAMED, Presence
from rmqjobs.worker.settlement import Settlement
from rmqjobs.worker.watchdog import Watchdog

log = logging.getLogger("rmqjobs.worker")

CLAIM_EVERY = 60.0
CONSUMER_TIMEOUTS = (3, 12)  # from here on a consumer sets its own limit
_NOW = partial(datetime.now, UTC)
NACK_DOES_NOT_COUNT = (4, 3)  # older brokers count every return towards the queue's delivery limit


class Worker:
    """Consumes, runs handlers and settles.

    Args:
        registry: The plugins it serves.
        settings: The broker, and how to work.
        roll: Random numbers in [0, 1), for the jitter of retries.
        now: The time of day, aware.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        roll: Callable[[], float] = random.random,
        now: Callable[[], datetime] = _NOW,
    ) -> None:
        self._registry, self._settings = registry, settings
        self.sizes = sizes(settings)
        self._slots = {Pool.ASYNC: settings.concurrency, Pool.THREAD: self.sizes.threads, Pool.PROCESS: self.sizes.children}
        self._names = Names(settings.prefix)
        self._topology = build(registry.handlers.values(), settings.prefix)
        self.name = connection_name("worker")
        heartbeat = settings.heartbeat
        # A broker short of memory stops reading from connections that publish: acknowledgements use another one.
        self._publishing = PublishLink(
            lambda: settings.broker, name=f"{self.name}:publish", heartbeat=heartbeat, prepare=self._declare
        )
        interval, timeout = settings.journal_interval, settings.publish_timeout
        self._journal = Journal(self._publishing, self._names, source=self.name, interval=interval, timeout=timeout)
        self.figures = Figures(self._values)
        self._chronicle = Chronicle(self._journal, self.figures, now)
        self._lookout = Lookout(self._names.scheduler, settings.scheduler_missing_after, self._chronicle.unscheduled)
        self.policies = PolicyWatch(settings)
        self._watchdog = Watchdog(registry.handlers.values(), self._chronicle.blocked)
        recycle = Recycle(settings.recycle_after, settings.recycle_above * 2**20)
        self._pools = Pools(
            threads=self.sizes.threads,
            children=self.sizes.children,
            recycle=recycle,
            lease=heartbeat,
            modules=(each.function.__module__ for each in registry.handlers.values() if each.pool is Pool.PROCESS),
        )
        self._settlement = Settlement(
            self._publishing,
            self._names,
            registry,
            worker=self.name,
            timeout=settings.publish_timeout,
            max_body=settings.max_body,
            now=now,
        )
        self._state = "starting"
        self.orders = Orders(
            self._names,
            self.name,
            sorted({handler.queue for handler in registry.handlers.values()}),
            switch=self._switch,
            running=lambda: self._path.running(),  # noqa: PLW0108 - it does not exist yet
            publish=lambda message: self._publishing.send(message, settings.publish_timeout, lambda _error: None),
            report=self._report,
            now=now,
        )
        claims = Claims(self._names, lambda: self._consuming.connection)
        self._path = JobPath(
            registry,
            self._pools,
            self.orders,
            claims,
            self._settlement,
            self._chronicle,
            max_body=settings.max_body,
            roll=roll,
            now=now,
        )
        self._presence = Presence(
            self._facts(),
            state=lambda: "draining" if self.orders.is_drained and self._state == "ready" else self._state,
            cases=lambda: self._path.open,
            stack_of=self._pools.stack_of,
            paused=lambda: self.orders.paused,
            lag=lambda: self._watchdog.recent_lag,
        )
        self._beats = Beats(self._journal, EventKind.WORKER, self._presence.report, now)
        self._intake = Intake(self._path, registry.handlers.values(), self._slots)
        self._consuming = ConsumeLink(
            lambda: settings.broker,
            name=self.name,
            heartbeat=heartbeat,
            subscriptions=self._subscriptions(),
            prepare=self._prepare_to_consume,
            on_delivery=self._intake.take,
            on_lost=self._intake.let_go,
            plugins=",".join(plugin.name for plugin in registry.plugins),
        )
        self._ahead = Ahead(
            self._consuming,
            self._intake.lane_of_queue,
            self._give_back,
            lambda: self._publishing.takes_messages,
            lambda: self._pools.shed(Interrupted("jobs take longer now: those fetched ahead go back"), keep=1),
        )
        self._declaring, self._declared_at = asyncio.Lock(), -math.inf
        self._beside: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Declares the topology and starts consuming.

        Raises:
            BrokerError: The broker is not there, or refuses us.
        """
        self._beats.write()
        await self._consuming.open()
        self._state = "ready"
        interval = self._settings.journal_interval
        beside = (
            self._journal.run(),
            self._chronicle.announce(self._path.open, interval),
            self._keep_claiming(),
            self._lookout.run(lambda: self._consuming.connection),
            self.orders.run(lambda: self._consuming.connection),
            self._beats.run(self._settings.beat_interval.total_seconds()),
            self.policies.run(lambda: self._consuming.connection),
            self._watchdog.run(),
            keep_limits(self._path.running),
            self._ahead.run(),
            self._declare_all(),
        )
        self._beside = [asyncio.create_task(each) for each in beside]
        if self._consuming.connection is not None:
            await self._look_out(self._consuming.connection)

    async def _look_out(self, connection: Connection) -> None:
        """Warns at start of what would surprise later."""
        for queue, jobs in (await stranded(connection, self._topology)).items():
            hint = "their handler moved to another queue; run the former version until this one is empty"
            log.warning("jobs wait where nobody consumes", extra={"queue": queue, "jobs": jobs, "hint": hint})
        limit = self._settings.consumer_timeout
        long = [each.job_type for each in self._registry.handlers.values() if each.max_runtime > limit]
        if long and connection.broker_version < CONSUMER_TIMEOUTS:
            hint = "this RabbitMQ takes jobs back after its own consumer_timeout; see: rmqjobs doctor"
            extra = {"types": long, "consumer_timeout": str(limit), "hint": hint}
            log.warning("max_runtime is beyond the broker's limit", extra=extra)

    @property
    def is_ready(self) -> bool:
        """Whether every expected consumer is there, and the messages that jobs lead to can be published."""
        return self._consuming.actual == self._consuming.expected and self._publishing.takes_messages

    @property
    def trouble(self) -> str:
        """Why this worker cannot be relied on; empty when it can."""
        return self.policies.loss if self.is_ready else "not ready: see the log"

    @property
    def running(self) -> int:
        """Jobs between their start and their settlement."""
        return self._intake.running

    def _facts(self) -> dict[str, JsonValue]:
        handlers = self._registry.handlers.values()
        return {
            "queues": [*sorted({handler.queue for handler in handlers})],
            "slots": {pool.value: self._slots[pool] for pool in sorted({handler.pool for handler in handlers})},
            "plugins": {plugin.name: plugin.version for plugin in self._registry.plugins},
        }

    def _values(self) -> Iterable[tuple[str, str, float]]:
        """Name, help text and present value of what the metrics show."""
        yield "rmqjobs_jobs_running", "Jobs between start and settlement", self.running
        yield "rmqjobs_worker_slots", "Jobs that can run at once", sum(self._slots.values())
        yield "rmqjobs_consumers_expected", "Queues this worker serves", self._consuming.expected
        yield "rmqjobs_consumers_actual", "Queues it consumes from now", self._consuming.actual
        yield "rmqjobs_connection_up", "1 while jobs can be settled", self._publishing.takes_messages
        yield "rmqjobs_event_loop_lag_seconds", "Longest lateness of the loop since the last look", self._watchdog.take_worst()
        missing = self._lookout.missing_seconds
        yield "rmqjobs_scheduler_missing_seconds", "How long schedules have existed without a connected scheduler", missing

    async def drain(self, grace: timedelta) -> int:
        """Stops consuming, gives back what has not started, waits, then interrupts and returns the rest.

        Returns:
            How many running jobs had to be interrupted.
        """
        self._state = "draining"
        self._beats.write()
        await self._consuming.stop()
        await self._ahead.stop(self._settings.publish_timeout)
        waiting = self._intake.take_out()
        self._pools.shed(Interrupted("the worker is draining"))
        await self._give_back_in_time(waiting)
        await self._until_idle(grace)
        interrupted = list(self._path.running())
        for run in interrupted:
            run.stop(Interrupted("the worker is draining"))
        await self._until_idle(self._settings.publish_timeout)
        await self._close()
        return len(interrupted)

    async def _report(self, stacks: bool) -> dict[str, Any]:
        """How this worker is; if asked for, with the stacks of what runs."""
        report = {"worker": self.name, **self._beats.report(), **self._presence.report(MOST_NAMED)}
        return report | {"jobs": await self._presence.stacks()} if stacks else report

    async def _switch(self, queue: str, pause: bool) -> None:
        """Takes nothing more from a queue, and gives back what has not started; or takes jobs again."""
        if not pause:
            await self._consuming.resume(queue)
            return
        await self._consuming.pause(queue)
        waiting = self._intake.take_out(queue)
        if self._intake.runs_in_children(queue):
            self._pools.shed(Interrupted("a queue is paused"))
        await self._give_back_in_time(waiting)

    async def _give_back(self, case: Case) -> None:
        """Returns a job that has not started."""
        connection = self._consuming.connection
        by_nack = connection is not None and connection.broker_version >= NACK_DOES_NOT_COUNT
        await self._settlement.give_back(case, by_nack=by_nack)

    async def _give_back_in_time(self, waiting: Iterable[Case]) -> None:
        """Gives back as many as the broker takes in time; the rest go back by themselves when the channel closes."""
        tasks = [asyncio.create_task(self._give_back(case)) for case in waiting]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._settings.publish_timeout.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        self._state = "stopped"
        self._beats.write()
        await self._journal.close()
        await self._pools.close()
        await self._consuming.close()
        await self._publishing.close()

    async def _until_idle(self, limit: timedelta) -> None:
        deadline = time.monotonic() + limit.total_seconds()
        while self.running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    # -- what is consumed

    def _subscriptions(self) -> list[Subscription]:
        queues: dict[str, list[Handler]] = {}
        for handler in self._registry.handlers.values():
            queues.setdefault(handler.queue, []).append(handler)
        return [
            Subscription(
                queue,
                self._names.queue(queue),
                self._prefetch(handlers[0]),
                consumer_arguments(handlers),
                takes_turns=handlers[0].singleton,
            )
            for queue, handlers in sorted(queues.items())
        ]

    def _prefetch(self, handler: Handler) -> int:
        if handler.singleton:
            return 1
        factor = 1 if handler.pool is Pool.PROCESS else self._settings.prefetch_factor
        return max(int(self._slots[handler.pool] * factor), 1)

    async def _declare(self, connection: Connection) -> None:
        """Declares the topology. Both connections do so, as each may find another broker; at the start, once is enough."""
        wanted_at = time.monotonic()
        async with self._declaring:
            if self._settings.declare and self._declared_at < wanted_at:
                await declare(connection, self._topology, foundation=build(prefix=self._settings.prefix))
                self._declared_at = time.monotonic()

    async def _declare_all(self) -> None:
        """Runs once, beside the first jobs, and brings back bindings that somebody has removed."""
        if self._settings.declare and (connection := self._consuming.connection) is not None:
            try:
                await declare(connection, self._topology)
            except BrokerError as error:
                log.warning("cannot declare all bindings", extra={"because": str(error)})

    async def _prepare_to_consume(self, connection: Connection) -> None:
        """Claims before anything runs: a claimed job that kills its worker must not run before claiming has ended."""
        self._publishing.open()
        await self._declare(connection)
        await asyncio.gather(
            self._claim(connection),
            self.orders.follow(connection),
            # Jobs that end faster than a busy loop connects would leave thousands of records waiting.
            self._publishing.until_connected(self._settings.publish_timeout),
        )

    async def _claim(self, connection: Connection) -> None:
        """Takes over jobs that were published before anybody knew their type."""
        types, timeout = self._registry.handlers.keys(), self._settings.publish_timeout
        await claim(connection, self._publishing, self._names, types, timeout)

    async def _keep_claiming(self) -> None:
        """Claims again and again: a job may still become unrouted while its queue is being bound."""
        while True:
            await asyncio.sleep(CLAIM_EVERY)
            connection = self._consuming.connection
            if connection is not None and not connection.closed.done():
                try:
                    await self._claim(connection)
                except BrokerError as error:
                    log.warning("cannot claim unrouted jobs", extra={"because": str(error)})
