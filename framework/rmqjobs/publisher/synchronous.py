"""The publisher of programs without an event loop: any number of threads, one connection."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from pydantic import JsonValue

from rmqjobs.errors import BrokerGone, PublisherClosed
from rmqjobs.job import Payload
from rmqjobs.publisher.batch import publish_all
from rmqjobs.publisher.writing import BatchOptions, PublishOptions, Writer, id_of, link_of
from rmqjobs.settings import Settings
from rmqjobs.tracking import AsyncTrackedJob, TrackedJob
from rmqjobs.wire.jobs import Message

AnswerT = TypeVar("AnswerT")


class Publisher:
    """Publishes jobs from any program: thread-safe, with heartbeats kept by a background thread of its own.

    Make one per process and keep it; use it with `with`, or call `close`; a closed one stays closed. It connects at the first
    publish, and again by itself in a forked child. Arguments and methods are those of `AsyncPublisher`, without `await`.
    """

    def __init__(self, url: str | None = None, *, app_id: str | None = None, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load(flags={"url": url}, environ=os.environ)
        self._write = Writer(self._settings, app_id)
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._closed = False

    def publish(self, payload: Payload, **options: Unpack[PublishOptions]) -> str:
        """Publishes one job and returns its id once RabbitMQ has it; see `AsyncPublisher.publish`."""
        return self._running().publish(self._write.payload(payload, **options))

    def publish_json(self, job_type: str, data: JsonValue | bytes, **options: Unpack[PublishOptions]) -> str:
        """Publishes a job by its type; see `AsyncPublisher.publish_json`."""
        return self._running().publish(self._write.json(job_type, data, **options))

    def publish_many(self, payloads: Iterable[Payload], **options: Unpack[BatchOptions]) -> list[str]:
        """Publishes many jobs, pipelined; see `AsyncPublisher.publish_many`."""
        return self._running().publish_many(self._write.payloads(payloads, **options))

    def job(self, job_id: str) -> TrackedJob:
        """One job, wherever it is; see `AsyncPublisher.job`."""
        return TrackedJob(AsyncTrackedJob(self._settings, job_id), lambda ask: self._running().run(ask))

    def close(self) -> None:
        """Waits for outstanding jobs and closes the connection for good; harmless when it is closed already."""
        with self._lock:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None and engine.pid == os.getpid():
            engine.close()

    def __enter__(self) -> Self:
        if self._closed:
            raise PublisherClosed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _running(self) -> _Engine:
        engine = self._engine
        if engine is not None and engine.pid == os.getpid():
            return engine
        with self._lock:
            if self._closed:
                raise PublisherClosed
            if self._engine is None or self._engine.pid != os.getpid():  # a forked child has no thread and must not share
                self._engine = _Engine(self._settings)
            return self._engine


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that can still look up a host while the program ends, when asyncio's threads for that are gone."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        """Like asyncio's, but looks the name up itself when no thread can."""
        try:
            return await super().getaddrinfo(host, port, **hints)
        except RuntimeError:
            return socket.getaddrinfo(host, port, **hints)


class _Order:
    """One message on its way through the other thread; the thread that gave it waits until it is settled."""

    __slots__ = ("_done", "error", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.error: Exception | None = None
        self._done = threading.Lock()  # held until it is settled: a plain lock is the quickest thing to wait for
        self._done.acquire()

    def settle(self, error: Exception | None) -> None:
        """Settles it: RabbitMQ has it, or there was this error."""
        self.error = error
        with suppress(RuntimeError):  # it is settled already
            self._done.release()

    def wait(self) -> None:
        """Waits until it is settled; raises its error, if there was one."""
        self._done.acquire()
        if self.error is not None:
            raise self.error


class _Engine:
    """An event loop on a thread, and a link on it.

    Single jobs are handed over as they are: a coroutine and a task for each would cost more than publishing it.
    """

    def __init__(self, settings: Settings) -> None:
        self.pid = os.getpid()
        self._timeout = settings.publish_timeout
        self._orders: deque[_Order] = deque()
        self._awake = False  # whether the loop is about to look at the orders
        self._batches: set[Future[list[str]]] = set()
        self._lock = threading.Lock()  # between those who publish and the one who closes
        self._closing = False
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rmqjobs-publisher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # from Python 3.12 on, when the program is ending
            self._loop.close()
            raise BrokerGone(f"not published: no thread can be started ({error}). Publish before the program ends") from None
        self._link = link_of(settings)

    def publish(self, message: Message) -> str:
        """Publishes one message and returns the job's id once RabbitMQ has it."""
        order = _Order(message)
        with self._lock:
            self._check_open()
            self._orders.append(order)
            if not self._awake:
                self._awake = True
                self._loop.call_soon_threadsafe(self._send)
        order.wait()
        return id_of(message)

    def publish_many(self, messages: Iterable[Message]) -> list[str]:
        """Publishes messages, made on the loop's thread, and returns their ids once RabbitMQ has all."""
        with self._lock:
            self._check_open()
            batch = asyncio.run_coroutine_threadsafe(publish_all(self._link, messages, self._timeout), self._loop)
            self._batches.add(batch)
        try:
            return batch.result()
        finally:
            self._batches.discard(batch)

    def run(self, ask: Callable[[], Coroutine[Any, Any, AnswerT]]) -> AnswerT:
        """Calls an asynchronous function on the loop, and returns what it returned."""
        with self._lock:
            self._check_open()
            running = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        return running.result()

    def close(self) -> None:
        """Finishes what was given before; anything that comes now is refused."""
        with self._lock:
            self._closing = True
        wait(list(self._batches))
        asyncio.run_coroutine_threadsafe(self._close_link(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close_link(self) -> None:
        self._send()
        await self._link.close()

    def _check_open(self) -> None:
        if self._closing:
            raise PublisherClosed

    def _send(self) -> None:
        self._awake = False  # before looking: an order that comes now wakes the loop again
        while self._orders:
            order = self._orders.popleft()
            try:
                self._link.send(order.message, self._timeout, order.settle)
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to hear of it
                order.settle(error)
