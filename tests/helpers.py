"""A plugin for tests, and small ways to wait for things to be so."""

import asyncio
import base64
import json
import os
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest

from rmqjobs import AsyncPublisher, Job, Payload, Plugin, Reject, Retry, RetryPolicy, Settings, Snooze
from rmqjobs.amqp.reviewing import desk
from rmqjobs.deadletters.review import Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.journal import follow
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.testing.broker import NoBroker, PrivateNode, RunningBroker
from rmqjobs.wire.deadletters import DeadLetter
from rmqjobs.worker import Worker

Condition = Callable[[], Any]


@contextmanager
def private_node(*config: str, files: Sequence[Path] = ()) -> Iterator[PrivateNode]:
    """A node of a test's own, running, with these lines in its configuration; skips where no server is installed."""
    try:
        node = PrivateNode(config=config, files=files)
    except NoBroker as error:
        pytest.skip(str(error))
    try:
        node.start()
        yield node
    finally:
        node.remove()


class Note(Payload, type="demo.note"):
    text: str
    n: int = 0


class Act(Payload, type="demo.act"):
    """Does what it says, in the way it says."""

    what: str = "ok"
    n: int = 0


class Slow(Payload, type="demo.slow"):
    seconds: float = 0.1
    n: int = 0


class Heavy(Payload, type="demo.heavy"):
    what: str = "ok"


class Alone(Payload, type="demo.alone"):
    n: int = 0


class Stage:
    """A plugin whose handlers write down what they did."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.running = 0
        self.most = 0
        self.plugin = Plugin("demo", retry=RetryPolicy(max_attempts=3, first_delay=timedelta(seconds=1), jitter=0))
        self._declare()

    @property
    def registry(self) -> Registry:
        return registry_of(self.plugin)

    def _declare(self) -> None:
        @self.plugin.handler
        async def note(payload: Note, job: Job) -> int:
            self.seen.append(("note", payload.text, payload.n, job.attempt))
            return payload.n + 1

        @self.plugin.handler
        async def act(payload: Act, job: Job) -> None:
            self.seen.append((payload.what, job.attempt, time.time()))
            await self._act(payload.what, job)

        @self.plugin.handler
        def slow(payload: Slow, job: Job) -> None:
            self.seen.append(("slow", payload.n, job.attempt))
            time.sleep(payload.seconds)

        self.plugin.handler(pool="process", max_runtime=timedelta(seconds=2))(heavy)

        @self.plugin.handler(singleton=True)
        async def alone(payload: Alone) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.05)
            self.running -= 1
            self.seen.append(("alone", payload.n))

    async def _act(self, what: str, job: Job) -> None:
        match what:
            case "fail":
                raise ValueError(f"boom {job.attempt}")
            case "fail twice" if job.attempt < 3:
                raise ValueError(f"boom {job.attempt}")
            case "reject":
                raise Reject("never")
            case "retry" if job.attempt == 1:
                raise Retry("busy", after=timedelta(seconds=1))
            case "snooze" if job.state is None:
                job.checkpoint("slept")
                raise Snooze(for_=timedelta(seconds=1))
            case "wait":
                await asyncio.sleep(600)
            case "resume":
                self.seen.append(("state", job.state))
                if job.state is None:
                    job.checkpoint({"page": 4})
                    await asyncio.sleep(600)
            case "report":
                job.progress(1, 2, "half")
                job.log("hello", colour="blue")
                await asyncio.sleep(0.2)


def heavy(payload: Heavy, job: Job) -> str:
    match payload.what:
        case "die":
            os._exit(9)
        case "hang":
            time.sleep(600)
        case "fail":
            raise ValueError(f"heavy boom {job.attempt}")
    return "heavy result"


@asynccontextmanager
async def working(stage: Stage, settings: Settings, *, grace: float = 5) -> AsyncIterator[Worker]:
    """A worker for as long as the context lasts; it drains at the end."""
    worker = Worker(stage.registry, settings)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.drain(timedelta(seconds=grace))


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[AsyncPublisher]:
    async with AsyncPublisher(settings=settings) as publisher:
        yield publisher


def wait(condition: Callable[[], Any], timeout: float = 60, *, told: Callable[[], str] = str) -> Any:
    """Waits until the condition holds; the limit is for what never comes, however busy the machine.

    If it never does, `told` says what there was instead.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so within {timeout} s\n{told()}"
        time.sleep(0.05)
    return found


async def until(condition: Condition, *, timeout: float = 60) -> Any:
    """Waits until the condition holds and returns what it gave; the limit is for what never comes, however busy the machine."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        await asyncio.sleep(0.02)


def probe(port: int | None, path: str) -> tuple[int, str]:
    """Status and text of what a process serves for its manager."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def dead_letters(settings: Settings, queue: str = "demo") -> list[DeadLetter]:
    async with desk(settings) as connection:
        return [letter async for letter in Review(connection, settings, by="test").letters(queue, Selection())]


async def a_dead_letter(settings: Settings, queue: str = "demo") -> DeadLetter:
    """The one dead letter there is, once it is there."""
    letters: list[DeadLetter] = await until(lambda: dead_letters(settings, queue))
    assert len(letters) == 1, letters
    return letters[0]


async def depth(settings: Settings, queue: str) -> int:
    """Ready messages of a queue by its short name; 0 when it does not exist."""
    async with desk(settings) as connection:
        return await connection.depth(f"{settings.prefix}.{queue}") or 0


async def events(settings: Settings) -> list[tuple[str, str]]:
    """Kind and type of each record of a job or a schedule."""
    found = [(event.kind.value, event.type) async for event in follow(settings, start="first", stop_at_end=True)]
    return [(kind, job_type) for kind, job_type in found if kind not in ("worker", "scheduler", "web", "acted")]


async def succeeded(settings: Settings, count: int = 1) -> bool:
    """Whether the journal has so many jobs that succeeded."""
    return [kind for kind, _ in await events(settings)].count("succeeded") == count


@asynccontextmanager
async def raw_channel(settings: Settings) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel that knows nothing of us: publishes anything."""
    connection = await aio_pika.connect(settings.url)
    async with connection:
        yield await connection.channel()


async def publish_raw(settings: Settings, body: bytes, *, key: str, exchange: str = "jobs", **properties: Any) -> None:
    async with raw_channel(settings) as channel:
        target = await channel.get_exchange(f"{settings.prefix}.{exchange}", ensure=False)
        await target.publish(aio_pika.Message(body, **properties), routing_key=key)


def manage(broker: RunningBroker, method: str, path: str, body: object = None) -> Any:
    """A call of the management API, and its answer."""
    parts = urlsplit(broker.management_url or "")
    request = urllib.request.Request(f"http://{parts.hostname}:{parts.port}/api/{path}", method=method)
    request.data = json.dumps(body).encode() if body is not None else None
    token = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=5) as answer:
        content = answer.read()
    return json.loads(content) if content else None


@contextmanager
def policy(
    broker: RunningBroker, prefix: str, definition: dict[str, Any], *, queues: str = "", kind: str = "policies"
) -> Iterator[str]:
    """A policy for the queues of one prefix, as one for `.*` would reach them, from when they have it until they have not."""
    name = f"hostile-{secrets.token_hex(3)}"
    pattern = rf"^{prefix}\.{queues}"
    manage(broker, "PUT", f"{kind}/%2F/{name}", {"pattern": pattern, "definition": definition, "priority": 7})
    try:
        wait(lambda: all(has_policy(broker, pattern, name)))
        yield name
    finally:
        manage(broker, "DELETE", f"{kind}/%2F/{name}")
        wait(lambda: not any(has_policy(broker, pattern, name)))


def has_policy(broker: RunningBroker, pattern: str, name: str) -> list[bool]:
    """Of each of these queues, whether it has that policy."""
    try:
        found = manage(broker, "GET", "queues/%2F?columns=name,policy,operator_policy")
    except urllib.error.HTTPError as error:  # RabbitMQ 3.10 has no answer while another test deletes a queue
        error.close()
        return [True, False]
    # RabbitMQ 3.10 tells nothing of streams.
    ours = [
        queue for queue in found if re.match(pattern, queue["name"]) and not queue["name"].endswith((".journal", ".control"))
    ]
    return [name in (queue.get("policy"), queue.get("operator_policy")) for queue in ours]
