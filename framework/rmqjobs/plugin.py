"""A plugin: handlers and schedules under one name. Floor 2: collects declarations, finds and runs nothing.

A `Plugin` object is itself a pluggy plugin: `rmqjobs_handlers` returns what its decorators collected. A package that needs
more passes objects with `@hookimpl` methods as `hooks`.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import pluggy
from pydantic_core import from_json

from rmqjobs import payloads
from rmqjobs.errors import PluginError, ScheduleError
from rmqjobs.job import DEFAULT_MAX_RUNTIME, Handler, Job, Payload, Pool, default_queue
from rmqjobs.retry import RetryPolicy

if TYPE_CHECKING:
    from rmqjobs.schedule import Schedule  # it imports cron, which most workers do not need

PROJECT = "rmqjobs"
hookimpl = pluggy.HookimplMarker(PROJECT)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_QUEUE = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}(\.[a-z0-9_-]+)*")
# Last words of our own names; a work queue with such a name would clash with one of ours.
RESERVED = frozenset(
    {"dead", "dropped", "unrouted", "journal", "scheduler", "control", "claim", "due", "jobs", "events", "delay"}
)

MisfireName = Literal["skip", "once", "all"]
OverlapName = Literal["skip", "queue", "allow"]
PoolName = Literal["async", "thread", "process"]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Plugin:
    """A named group of handlers and schedules.

    Args:
        name: Lower-case letters, digits, `_` and `-`; also the stem of its queues and the name for `--plugin`.
        retry: The retry policy of handlers that set none.
        max_runtime: The time limit of handlers that set none.
        hooks: Objects with further `@hookimpl` methods.
    """

    def __init__(
        self,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        max_runtime: timedelta = DEFAULT_MAX_RUNTIME,
        hooks: Sequence[object] = (),
    ) -> None:
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise PluginError(
                f"the name {name!r} cannot be used",
                hint="Use up to 40 lower-case letters, digits, '_' and '-', and none of " + ", ".join(sorted(RESERVED)),
            )
        self.name = name
        self.hooks = tuple(hooks)
        self._retry = retry or RetryPolicy()
        self._max_runtime = self._limit(max_runtime)
        self._handlers: list[Handler] = []
        self._schedules: list[Schedule] = []

    @overload
    def handler(self, function: FunctionT) -> FunctionT: ...

    @overload
    def handler(
        self,
        *,
        pool: PoolName | None = None,
        queue: str | None = None,
        max_runtime: timedelta | None = None,
        retry: RetryPolicy | None = None,
        singleton: bool = False,
    ) -> Callable[[FunctionT], FunctionT]: ...

    def handler(
        self,
        function: FunctionT | None = None,
        *,
        pool: PoolName | None = None,
        queue: str | None = None,
        max_runtime: timedelta | None = None,
        retry: RetryPolicy | None = None,
        singleton: bool = False,
    ) -> FunctionT | Callable[[FunctionT], FunctionT]:
        """Registers a function as the handler of its payload's job type; use it with or without arguments.

        Args:
            function: `async def` or `def` with an annotated payload and, optionally, a `Job`.
            pool: By default `async` for `async def` and `thread` for `def`; `process` runs either in a child process.
            queue: Work queue; by default one per plugin and pool, and one per job type for singletons.
            max_runtime: Time limit of one run.
            retry: Retry policy.
            singleton: Whether only one run at a time is allowed in the whole cluster.

        Raises:
            PluginError: The function cannot be a handler; the message says why.
        """

        def register(function: FunctionT) -> FunctionT:
            self._check_callable(function)
            payload_type, wants_job = self._signature(function)
            chosen = self._pool(function, pool)
            self._handlers.append(
                Handler(
                    function=function,
                    payload_type=payload_type,
                    pool=chosen,
                    queue=self._queue(queue, chosen, payload_type, singleton=singleton),
                    max_runtime=self._max_runtime if max_runtime is None else self._limit(max_runtime),
                    retry=retry or self._retry,
                    singleton=singleton,
                    wants_job=wants_job,
                    plugin=self.name,
                )
            )
            return function

        return register if function is None else register(function)

    @hookimpl
    def rmqjobs_handlers(self) -> tuple[Handler, ...]:
        """The handlers registered so far."""
        return tuple(self._handlers)

    def schedule(
        self,
        name: str,
        *,
        payload: Payload,
        cron: str | None = None,
        every: timedelta | None = None,
        at: datetime | None = None,
        tz: str = "UTC",
        misfire: MisfireName = "once",
        misfire_limit: int = 100,
        misfire_grace: timedelta = timedelta(minutes=1),
        overlap: OverlapName | None = None,
        jitter: timedelta = timedelta(0),
        expires: timedelta | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        paused: bool = False,
        expected_by: timedelta | None = None,
        ping: str | None = None,
    ) -> Schedule:
        """Publishes a job again and again; exactly one of `cron`, `every` and `at` says when.

        Args:
            name: Unique in the plugin; the schedule is called `<plugin>.<name>`.
            payload: The payload of each tick's job; its class carries the job type.
            cron: Five fields with names and steps, or `@daily` and friends; `H` is a fixed value that spreads load.
            every: An interval of real time, counted from `start`, or from 1970-01-01 UTC.
            at: Once, at this instant.
            tz: IANA time zone of `cron` and of naive instants.
            misfire: What happens to ticks missed by more than the grace: `skip` them, make up for them `once`, run `all`.
            misfire_limit: With `all`: at most this many run, the newest ones.
            misfire_grace: A tick that is at most this late counts as late, not as missed.
            overlap: `skip` (a tick that could not start before the next one is dropped) and `queue` need a singleton
                handler; `allow` runs ticks side by side. By default `skip` for singletons, `allow` for others.
            jitter: Each tick is published up to this much later, always the same for a given tick.
            expires: A tick's job that has not started this long after its time is dropped, and the journal says so.
            start: No ticks before this instant.
            end: No ticks after this instant.
            paused: No ticks until an operator resumes it.
            expected_by: An alarm is raised when no job of the schedule has succeeded this long after a tick's time.
            ping: URL called on success; with `/start` appended when a run starts, with `/fail` when a job is given up.

        Raises:
            ScheduleError: The schedule is impossible; the message names the field, its value and what is wrong.
        """
        fields = {
            "cron": cron, "every": every, "at": at, "tz": tz, "misfire": misfire, "misfire_limit": misfire_limit,
            "misfire_grace": misfire_grace, "overlap": overlap, "jitter": jitter, "expires": expires, "start": start,
            "end": end, "paused": paused, "expected_by": expected_by, "ping": ping,
        }  # fmt: skip
        try:
            body = from_json(payloads.write(payload))
        except ValueError as error:
            raise ScheduleError(f"{self.name}.{name}", f"its payload cannot be written as JSON: {error}") from None
        from rmqjobs.schedule import schedule_of  # noqa: PLC0415 - see above

        caller = sys._getframe(1)  # noqa: SLF001 - so that an error names the line to fix
        where = f"{caller.f_code.co_filename}, line {caller.f_lineno}"
        full_name = f"{self.name}.{name}"
        schedule = schedule_of({"name": full_name, "type": payload.job_type, "payload": body, **fields}, where=where)
        self._schedules.append(schedule)
        return schedule

    @hookimpl
    def rmqjobs_schedules(self) -> tuple[Schedule, ...]:
        """The schedules registered so far."""
        return tuple(self._schedules)

    def default_queue(self, pool: Pool) -> str:
        """The queue of this plugin's handlers in that pool. Each pool has one, so slow work never holds up quick work."""
        return default_queue(self.name, pool)

    def _refuse(self, function: Callable[..., Any], problem: str, hint: str) -> PluginError:
        return PluginError(f"handler {function.__module__}.{function.__qualname__}: {problem}", plugin=self.name, hint=hint)

    def _check_callable(self, function: Callable[..., Any]) -> None:
        """Refuses a callable that has no name, or that would return before its body has run."""
        if not hasattr(function, "__qualname__"):
            kind = type(function).__name__
            raise PluginError(f"a {kind} cannot be a handler", plugin=self.name, hint="Write a function that calls it")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise self._refuse(function, "it has a yield: it returns a generator, and its body never runs", "Use return")

    def _signature(self, function: Callable[..., Any]) -> tuple[type[Payload], bool]:
        hint = "Annotate the first parameter with a Payload class that has a type"
        try:
            annotations = typing.get_type_hints(function)
        except NameError as error:
            raise self._refuse(function, f"its annotations cannot be read: {error}", hint) from None
        parameters = list(inspect.signature(function).parameters)
        if not 1 <= len(parameters) <= 2:  # noqa: PLR2004 - the payload and the job
            raise self._refuse(function, f"it takes {len(parameters)} parameters, not payload and job", hint)
        payload_type = annotations.get(parameters[0])
        if payload_type is None:
            raise self._refuse(function, f"parameter {parameters[0]!r} has no annotation", hint)
        if not (isinstance(payload_type, type) and issubclass(payload_type, Payload) and payload_type.job_type):
            raise self._refuse(function, f"{payload_type!r} is not a Payload class with a job type", hint)
        if parameters[1:] and annotations.get(parameters[1]) is not Job:
            raise self._refuse(function, f"second parameter {parameters[1]!r} is not a Job", "Annotate it with Job")
        return payload_type, len(parameters) > 1

    def _pool(self, function: Callable[..., Any], wanted: str | None) -> Pool:
        is_async = inspect.iscoroutinefunction(function)
        # Decorators often wrap an `async def` in a plain function that returns its coroutine.
        hides_async = not is_async and inspect.iscoroutinefunction(inspect.unwrap(function))
        pool = self._pool_named(function, wanted) if wanted else (Pool.ASYNC if is_async or hides_async else Pool.THREAD)
        if pool is Pool.ASYNC and not (is_async or hides_async):
            raise self._refuse(function, "a plain function would block the event loop", "Use async def, or pool='thread'")
        if pool is Pool.THREAD and is_async:
            raise self._refuse(function, "an async function cannot run in a thread", "Use pool='async' or pool='process'")
        if pool is Pool.PROCESS and ("<locals>" in function.__qualname__ or inspect.ismethod(function)):
            raise self._refuse(function, "a child process cannot import it", "Move it to the top level of its module")
        return pool

    def _pool_named(self, function: Callable[..., Any], name: str) -> Pool:
        try:
            return Pool(name)
        except ValueError:
            raise self._refuse(function, f"there is no pool {name!r}", f"Pools are {', '.join(Pool)}") from None

    def _limit(self, wanted: timedelta) -> timedelta:
        if not isinstance(wanted, timedelta) or wanted <= timedelta(0):
            raise PluginError(
                f"max_runtime={wanted!r} is not a time limit",
                plugin=self.name,
                hint="Give a timedelta, such as timedelta(minutes=5)",
            )
        return wanted

    def _queue(self, wanted: str | None, pool: Pool, payload_type: type[Payload], *, singleton: bool) -> str:
        if wanted is None:
            return payload_type.job_type if singleton else self.default_queue(pool)
        if not _QUEUE.fullmatch(wanted) or RESERVED & set(wanted.split(".")):
            raise PluginError(
                f"queue name {wanted!r} cannot be used",
                plugin=self.name,
                hint="Use lower-case words joined with dots, and none of " + ", ".join(sorted(RESERVED)),
            )
        return wanted
