"""The model: a payload, a job, a handler. Floor 2: plain values, no I/O.

A `Payload` carries its job type, so a producer needs no string. A `Job` is what a handler sees of the run it is in. A
`Handler` is a function with everything the framework must know to run it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from rmqjobs.errors import InvalidPayload, MalformedMessage
from rmqjobs.retry import RetryPolicy

JOB_TYPE = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*")
# A routing key has 255 bytes at most, and the delay ladder puts 56 before the job type.
MAX_JOB_TYPE_BYTES = 199
MAX_CHECKPOINT_BYTES = 16 * 1024
DEFAULT_MAX_RUNTIME = timedelta(minutes=25)  # the broker takes an unacknowledged job back after 30 by default


@lru_cache(4096)
def is_job_type(text: str) -> bool:
    """Whether the text can be a job type."""
    return len(text) <= MAX_JOB_TYPE_BYTES and JOB_TYPE.fullmatch(text) is not None


def check_job_type(job_type: str) -> str:
    """Returns the job type, or raises `ValueError` saying what is wrong with it."""
    if not is_job_type(job_type):
        raise ValueError(
            f"job type {job_type!r}: use lower-case words of letters, digits, '_' and '-' joined with dots,"
            f" {MAX_JOB_TYPE_BYTES} characters at most, such as 'video.transcode'"
        )
    return job_type


def check_numbers(body: bytes) -> None:
    """Raises `ValueError` when JSON contains NaN or Infinity, which Python accepts although JSON does not have them."""
    if b"NaN" in body or b"Infinity" in body:  # perhaps inside a string
        try:
            from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError(f"JSON has no NaN and no Infinity: {error}") from None


class Payload(BaseModel):
    """The typed arguments of a job. Subclass it with the job type: `class Send(Payload, type="mail.send")`.

    Unknown fields of a received message are ignored, so that a producer may be newer than its worker.
    """

    # JSON has no NaN. In a field that takes any value it is still written as NaN, so that publishing can refuse it.
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")
    job_type: ClassVar[str] = ""

    def __init_subclass__(cls, type: str | None = None, **kwargs: Any) -> None:  # noqa: A002 - reads best at the use
        super().__init_subclass__(**kwargs)
        if type is not None:
            cls.job_type = check_job_type(type)

    @classmethod
    def __pydantic_init_subclass__(cls, type: str | None = None, **kwargs: Any) -> None:  # noqa: A002
        """Keeps the class keyword `type` away from pydantic."""
        super().__pydantic_init_subclass__(**kwargs)


class Pool(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


def default_queue(plugin: str, pool: Pool) -> str:
    """`video` for async handlers, `video.thread` and `video.process` for the others."""
    return plugin if pool is Pool.ASYNC else f"{plugin}.{pool.value}"


# Takes what a running job reports: the job, then `progress`, `log` or `checkpoint`, then the data.
Reporter = Callable[["Job", str, Mapping[str, JsonValue]], None]


def discard(_job: Job, _kind: str, _data: Mapping[str, JsonValue]) -> None:
    """The reporter of a job that nobody listens to."""


@dataclass(slots=True, eq=False)
class Job:
    """The run that a handler is in.

    Args:
        id: The job's id, the same in every attempt.
        type: The job type.
        attempt: Number of this run, from 1.
        max_attempts: Runs the retry policy allows.
        queue: The work queue it came from, without the prefix.
        published_at: When the producer published it, if known.
        schedule: Name of the schedule that made this job, if one did.
        scheduled_for: The planned time of its tick.
        period_start: Start of the period that the tick stands for; `scheduled_for` is its end. It is the time of the tick
            before, or an earlier one when this tick makes up for missed ones.
        correlation_id: As the producer set it.
        headers: The producer's own headers.
        state: What the last `checkpoint` stored, perhaps in an earlier attempt; None before the first.
    """

    id: str
    type: str
    attempt: int = 1
    max_attempts: int = 1
    queue: str = ""
    published_at: datetime | None = None
    schedule: str | None = None
    scheduled_for: datetime | None = None
    period_start: datetime | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    state: JsonValue = None
    cancelled: bool = False
    reporter: Reporter = field(default=discard, repr=False)

    def progress(self, done: float, total: float = 1.0, note: str = "") -> None:
        """Reports how far the work is: `done` of `total`, in any unit. Thread-safe and cheap; shown live and journalled."""
        self.reporter(self, "progress", {"done": done, "total": total, "note": note})

    def log(self, message: str, **fields: JsonValue) -> None:
        """Writes a line about this job to the worker's log and the journal. Thread-safe."""
        self.reporter(self, "log", {**fields, "message": message})

    def checkpoint(self, state: JsonValue) -> None:
        """Keeps JSON `state` (16 KB at most) for the next run of this job, which finds it in `job.state`.

        It travels in the message, so it survives retries and drains, but not a crash of the worker.

        Raises:
            ValueError: It is too large, or not JSON.
        """
        encoded = to_json(state)
        if len(encoded) > MAX_CHECKPOINT_BYTES:
            raise ValueError(
                f"a checkpoint of {len(encoded):,} bytes: the limit is {MAX_CHECKPOINT_BYTES:,}. Store it elsewhere"
            )
        self.state = from_json(encoded)  # a copy: what the handler changes later is not in this checkpoint
        self.reporter(self, "checkpoint", {"state": self.state})


HandlerFunction = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and all that is needed to run it.

    Args:
        function: `async def` or `def`; takes the payload, and the `Job` if `wants_job`.
        payload_type: Its payload class; the job type is the class's.
        pool: Where it runs.
        queue: The work queue's name, without the prefix.
        max_runtime: Longer runs are stopped: always in a process, elsewhere as far as Python allows.
        retry: What happens after failures.
        singleton: Whether only one run at a time is allowed in the whole cluster.
        wants_job: Whether the function takes a second argument.
        plugin: Name of its plugin.
    """

    function: HandlerFunction
    payload_type: type[Payload]
    pool: Pool
    queue: str
    max_runtime: timedelta = DEFAULT_MAX_RUNTIME
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    singleton: bool = False
    wants_job: bool = False
    plugin: str = ""

    @property
    def job_type(self) -> str:
        """The job type it handles."""
        return self.payload_type.job_type

    @property
    def name(self) -> str:
        """Module and function, such as `rmqjobs_video.handlers.transcode`."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def validate(self, body: bytes) -> Payload:
        """The payload from its JSON.

        Raises:
            MalformedMessage: The body is not JSON.
            InvalidPayload: A field is wrong; the message names each one and what is wrong with it, never its value.
        """
        try:
            check_numbers(body)
            return self.payload_type.model_validate_json(body)
        except ValidationError as error:
            explained = explain_payload_errors(self.payload_type, error)
            if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
                raise MalformedMessage(explained) from None
            raise InvalidPayload(explained) from None
        except ValueError as error:
            raise MalformedMessage(str(error)) from None


def explain_payload_errors(payload_type: type[Payload], error: ValidationError) -> str:
    """One line per wrong field, without the values: they may be secrets."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    lines = "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'body'}: {detail['msg']}" for detail in details[:20])
    return f"not a payload of {payload_type.job_type!r} ({payload_type.__qualname__}): {lines}"
