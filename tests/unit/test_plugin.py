"""What a plugin accepts as a handler, and what it says about the rest."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from rmqjobs.errors import PluginError
from rmqjobs.job import Job, Payload, Pool
from rmqjobs.plugin import Plugin
from rmqjobs.retry import RetryPolicy


class Greet(Payload, type="hello.greet"):
    name: str


class Untyped(Payload):
    name: str


async def quick(payload: Greet) -> None: ...
def slow(payload: Greet, job: Job) -> None: ...


def test_async_functions_run_on_the_loop_and_plain_ones_in_threads() -> None:
    plugin = Plugin("hello")
    plugin.handler(quick)
    plugin.handler(slow)
    one, two = plugin.rmqjobs_handlers()
    assert (one.pool, one.queue, one.wants_job) == (Pool.ASYNC, "hello", False)
    assert (two.pool, two.queue, two.wants_job) == (Pool.THREAD, "hello.thread", True)


def test_the_decorator_returns_the_function_itself() -> None:
    assert Plugin("hello").handler(quick) is quick
    assert Plugin("hello").handler(singleton=True)(quick) is quick


def test_options_of_the_plugin_count_until_a_handler_sets_its_own() -> None:
    plugin = Plugin("hello", retry=RetryPolicy(max_attempts=2), max_runtime=timedelta(minutes=1))
    plugin.handler(quick)
    plugin.handler(retry=RetryPolicy(max_attempts=9), max_runtime=timedelta(hours=1))(slow)
    one, two = plugin.rmqjobs_handlers()
    assert (one.retry.max_attempts, one.max_runtime) == (2, timedelta(minutes=1))
    assert (two.retry.max_attempts, two.max_runtime) == (9, timedelta(hours=1))


def test_a_singleton_has_a_queue_of_its_own() -> None:
    plugin = Plugin("hello")
    plugin.handler(singleton=True)(quick)
    assert plugin.rmqjobs_handlers()[0].queue == "hello.greet"


def no_annotation(payload) -> None: ...  # type: ignore[no-untyped-def]
def wrong_annotation(payload: dict[str, str]) -> None: ...
def untyped_payload(payload: Untyped) -> None: ...
def too_many(payload: Greet, job: Job, more: int) -> None: ...
def nothing() -> None: ...
def wrong_second(payload: Greet, job: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (no_annotation, {}, "no annotation"),
        (wrong_annotation, {}, "not a Payload class"),
        (untyped_payload, {}, "not a Payload class with a job type"),
        (too_many, {}, "3 parameters"),
        (nothing, {}, "0 parameters"),
        (wrong_second, {}, "is not a Job"),
        (slow, {"pool": "async"}, "block the event loop"),
        (quick, {"pool": "thread"}, "cannot run in a thread"),
        (slow, {"queue": "Nice Queue"}, "queue name"),
        (slow, {"queue": "video.dead"}, "queue name"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_with_the_reason(function: object, options: dict[str, str], said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        Plugin("hello").handler(**options)(function)  # type: ignore[call-overload]
    assert "'hello'" in str(caught.value)


def test_a_process_handler_must_be_importable() -> None:
    def inner(payload: Greet) -> None: ...

    with pytest.raises(PluginError, match="cannot import it"):
        Plugin("hello").handler(pool="process")(inner)


@pytest.mark.parametrize("name", ["", "Video", "a.b", "dead", "x" * 41, "due"])
def test_a_plugin_name_that_would_clash_or_break_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="name"):
        Plugin(name)


def generates(payload: Greet) -> Iterator[int]:
    yield 1


async def generates_async(payload: Greet) -> AsyncIterator[int]:
    yield 1


class Greeter:
    def __call__(self, payload: Greet) -> None: ...
    def method(self, payload: Greet) -> None: ...


def hides_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (generates, {}, "it has a yield"),
        (generates_async, {}, "it has a yield"),
        (functools.partial(quick), {}, "a partial cannot be a handler"),
        (Greeter(), {}, "a Greeter cannot be a handler"),
        (Greeter().method, {"pool": "process"}, "a child process cannot import it"),
        (slow, {"pool": "fibre"}, "there is no pool 'fibre'. Pools are async, thread, process"),
        (quick, {"max_runtime": 60}, "max_runtime=60 is not a time limit"),
        (quick, {"max_runtime": timedelta(0)}, "is not a time limit"),
    ],
)
def test_what_would_never_run_is_refused(function: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        Plugin("hello").handler(**options)(function)


def test_a_decorator_that_hides_async_changes_no_pool() -> None:
    plugin = Plugin("hello")
    plugin.handler(hides_async(quick))
    plugin.handler(pool="thread")(hides_async(quick))  # whoever awaits by other means says so
    assert [handler.pool for handler in plugin.rmqjobs_handlers()] == [Pool.ASYNC, Pool.THREAD]
