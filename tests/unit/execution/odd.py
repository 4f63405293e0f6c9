"""Thirty odd ways for a handler to end; each must end alike in every pool."""

import asyncio
import contextvars
import datetime as dt
import decimal
import enum
import functools
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rmqjobs.errors import Reject, Retry, Snooze
from rmqjobs.job import Job, Payload


class Odd(Payload, type="test.odd"):
    what: str


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text today")


class TextIsANumber(Exception):
    def __str__(self) -> str:
        return 42  # type: ignore[return-value] # noqa: PLE0307 - the point


class NoRepr:
    def __repr__(self) -> str:
        raise LookupError("the row is detached")


class OwnBase(BaseException): ...


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int


class Model(BaseModel):
    at: dt.date


class Nested(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("nested", code)


def raising(error: BaseException) -> Callable[[], object]:
    def call() -> object:
        raise error

    return call


def itself() -> object:
    held: list[object] = []
    held.append(held)
    return held


def deep() -> object:
    value: list[object] = []
    for _ in range(5_000):
        value = [value]
    return value


def recursion() -> object:
    return recursion()


def chained() -> object:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


def group() -> object:
    raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])


def generator() -> object:
    yield 1


async def coroutine() -> int:
    return 1


ODD: dict[str, Callable[[], object]] = {
    "value error": raising(ValueError("boom")),
    "no arguments": raising(ValueError()),
    "several arguments": raising(Nested(3)),
    "no text": raising(NoText()),
    "text is a number": raising(TextIsANumber()),
    "half characters": raising(OSError("caf\udce9.mp4")),
    "nul": raising(ValueError("a\0b")),
    "a megabyte": raising(ValueError("unknown base in " + "acgt" * 250_000)),
    "system exit": raising(SystemExit(3)),
    "system exit with words": raising(SystemExit("missing configuration")),
    "keyboard interrupt": raising(KeyboardInterrupt()),
    "cancelled": raising(asyncio.CancelledError("by itself")),
    "generator exit": raising(GeneratorExit()),
    "stop iteration": raising(StopIteration(7)),
    "stop async iteration": raising(StopAsyncIteration(7)),
    "own base": raising(OwnBase("of its own")),
    "timeout": raising(TimeoutError("slow")),
    "recursion": recursion,
    "chained": chained,
    "group": group,
    "retry": raising(Retry("busy", after=dt.timedelta(seconds=60))),
    "retry without words": raising(Retry()),
    "reject": raising(Reject("no")),
    "reject with a number": raising(Reject(404)),  # type: ignore[arg-type] # the point
    "snooze": raising(Snooze(for_=dt.timedelta(seconds=3))),
    "snooze for nothing": raising(Snooze(for_=dt.timedelta(0))),
    "nothing": lambda: None,
    "text": lambda: "naïve ☃",
    "half character": lambda: "caf\udce9",
    "bytes": lambda: b"\xff\x00",
    "not a number": lambda: [float("nan"), float("inf")],
    "no repr": lambda: {"ok": 1, "row": NoRepr()},
    "itself": itself,
    "deep": deep,
    "huge number": lambda: 10**5_000,
    "function": lambda: len,
    "set": lambda: {1},
    "tuple": lambda: (1, 2),
    "enum": lambda: Colour.RED,
    "dataclass": lambda: Point(1),
    "model": lambda: Model(at=dt.date(2026, 1, 2)),
    "decimal": lambda: decimal.Decimal("0.10"),
    "uuid": lambda: uuid.UUID(int=5),
    "date": lambda: dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
    "not implemented": lambda: NotImplemented,
    "exception as a result": lambda: ValueError("returned"),
    "generator": generator,
    "lock": lambda: threading.Lock().__class__.__name__,
}
PROMISES = {"coroutine": coroutine, "future": lambda: asyncio.sleep(0)}


def odd(payload: Odd) -> object:
    return (ODD | PROMISES)[payload.what]()


async def odd_async(payload: Odd) -> object:
    return (ODD | PROMISES)[payload.what]()


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def remember(payload: Odd) -> str:
    """The variable as it finds it, which it then sets."""
    found = tenant.get()
    tenant.set(payload.what)
    return found


async def remember_async(payload: Odd) -> str:
    return remember(payload)


def see_job(payload: Odd, job: Job) -> dict[str, Any]:
    """What the job looks like, by the types that it has here."""
    return {"headers": {name: repr(value) for name, value in sorted(job.headers.items())}, "repr": repr((job.id, job.state))}


async def see_job_async(payload: Odd, job: Job) -> dict[str, Any]:
    return see_job(payload, job)


def leave_tasks(payload: Odd) -> None: ...


async def leaves_a_task(payload: Odd) -> list[str]:
    asyncio.create_task(asyncio.sleep(60), name=f"left by {payload.what}")  # noqa: RUF006 - the point
    await asyncio.sleep(0)
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("left by"))


def hidden(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that hides `async def`, as many do."""

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper
