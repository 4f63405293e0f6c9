"""Whatever a handler raises or returns ends alike in every pool: same verdict, same reason, same error, same result."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import pytest_asyncio

from rmqjobs.errors import Signal
from rmqjobs.execution import Pools, Run
from rmqjobs.failures import MAX_MESSAGE, failure_of
from rmqjobs.job import Handler, HandlerFunction, Job, Pool
from rmqjobs.retry import Counters, RetryPolicy, decide
from rmqjobs.wire.values import as_json
from tests.unit.execution import odd as handlers
from tests.unit.execution.odd import ODD, PROMISES, Odd

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one pool for all: nothing may harm what comes after it
POLICY = RetryPolicy(max_attempts=1)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(threads=1, children=1)
    yield pools
    await pools.close()


def a_run(function: HandlerFunction, pool: Pool, what: str = "", job: Job | None = None) -> Run:
    payload = Odd(what=what)
    handler = Handler(function, Odd, pool, "test", wants_job=job is not None)
    return Run(handler, payload, payload.model_dump_json().encode(), job or Job("1", "test.odd"))


async def ending(pools: Pools, run: Run) -> tuple[object, ...]:
    """How it ended, as everybody who is told of it sees it."""
    try:
        result = await pools.run(run)
    except Exception as error:  # noqa: BLE001 - whatever it is
        failure = failure_of(error)
        signal = vars(error) if isinstance(error, Signal) else {}
        reason = {name: str(value) for name, value in signal.items()}
        return failure.type, failure.message, reason, decide(POLICY, Counters(), error)
    return bytes(as_json(result)), decide(POLICY, Counters(), None)


@pytest.mark.parametrize("what", ODD)
async def test_every_pool_tells_the_same(pools: Pools, what: str) -> None:
    by_loop, by_child_async, by_thread, by_child = [
        await ending(pools, a_run(function, pool, what))
        for function, pool in (
            (handlers.odd_async, Pool.ASYNC),
            (handlers.odd_async, Pool.PROCESS),
            (handlers.odd, Pool.THREAD),
            (handlers.odd, Pool.PROCESS),
        )
    ]
    assert by_loop == by_child_async == by_thread == by_child
    assert await ending(pools, a_run(handlers.odd, Pool.PROCESS, "text")) == (
        '"naïve ☃"'.encode(),
        decide(POLICY, Counters(), None),
    ), "the child goes on"


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("no text", "NoText", "<NoText: its text is not available, RuntimeError was raised>"),
        ("text is a number", "TextIsANumber", "<TextIsANumber: its text is not available, TypeError was raised>"),
        ("half characters", "OSError", r"caf\udce9.mp4"),
        ("system exit", "SystemExit", "3"),
        ("cancelled", "CancelledError", "by itself"),
        ("stop iteration", "StopIteration", "7"),
        ("generator", "TypeError", "the handler returned a generator, so its body has not run"),
    ],
)
async def test_it_dies_as_what_it_is(pools: Pools, what: str, kind: str, text: str) -> None:
    name, message, *_ = await ending(pools, a_run(handlers.odd, Pool.PROCESS, what))
    assert str(name).rpartition(".")[2] == kind
    assert text in str(message)


async def test_a_long_message_is_shortened_and_its_frames_stay(pools: Pools) -> None:
    with pytest.raises(Exception, match="unknown base") as caught:
        await pools.run(a_run(handlers.odd, Pool.PROCESS, "a megabyte"))
    failure = failure_of(caught.value)
    assert len(failure.message) == MAX_MESSAGE
    assert failure.message.endswith("… (1,000,016 characters)")
    assert "in call" in failure.traceback


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("no repr", '{"ok":1,"row":"<NoRepr: its text is not available, LookupError was raised>"}'),
        ("itself", '"[[...]]"'),
        ("deep", '"<list: its text is not available, RecursionError was raised>"'),
        ("half character", r'"caf\\udce9"'),
        ("bytes", r'"\\xff\u0000"'),
    ],
)
async def test_what_json_cannot_express_is_its_text_form(pools: Pools, what: str, text: str) -> None:
    for pool in (Pool.THREAD, Pool.PROCESS):
        assert as_json(await pools.run(a_run(handlers.odd, pool, what))).decode() == text


@pytest.mark.parametrize("what", PROMISES)
async def test_an_awaitable_is_awaited_or_fails(pools: Pools, what: str) -> None:
    with pytest.raises(TypeError, match="its body has not run"):
        await pools.run(a_run(handlers.odd, Pool.THREAD, what))
    with pytest.raises(TypeError, match="its body has not run"):
        await pools.run(a_run(handlers.odd_async, Pool.ASYNC, what))
    by_child = await ending(pools, a_run(handlers.odd_async, Pool.PROCESS, what))
    assert by_child[0] == "TypeError"


async def test_a_hidden_async_function_runs(pools: Pools) -> None:
    function = handlers.hidden(handlers.odd_async)
    assert await pools.run(a_run(function, Pool.ASYNC, "text")) == "naïve ☃"


@pytest.mark.parametrize(
    ("function", "pool"),
    [
        (handlers.remember, Pool.THREAD),
        (handlers.remember, Pool.PROCESS),
        (handlers.remember_async, Pool.PROCESS),
    ],
)
async def test_no_variable_of_one_job_is_seen_by_the_next(pools: Pools, function: HandlerFunction, pool: Pool) -> None:
    found = [as_json(await pools.run(a_run(function, pool, f"user{n}"))).decode() for n in range(3)]
    assert found == ['"nobody"'] * 3


async def test_a_thread_sees_what_hooks_have_set(pools: Pools) -> None:
    handlers.tenant.set("of this job")
    assert await pools.run(a_run(handlers.remember, Pool.THREAD)) == "of this job"
    assert handlers.tenant.get() == "of this job"


async def test_tasks_that_a_job_leaves_behind_end_with_it(pools: Pools) -> None:
    for n in range(2):
        left = await pools.run(a_run(handlers.leaves_a_task, Pool.PROCESS, str(n)))
        assert as_json(left).decode() == f'["left by {n}"]'


async def test_a_job_looks_the_same_in_a_child(pools: Pools) -> None:
    headers = {
        "text": "naïve",
        "number": 2**53 + 1,
        "float": 1764277000.123,
        "huge": 1e300,
        "bytes": b"\x9f\x00\xff",
        "date": datetime(2026, 1, 2, tzinfo=UTC),
        "decimal": Decimal("0.10"),
        "table": {"list": [1, None, True, b"\xff"]},
    }
    job = Job("1", "test.odd", headers=headers, state={"page": [1, 2.5, None]})
    seen = [
        as_json(await pools.run(a_run(function, pool, job=job)))
        for function, pool in (
            (handlers.see_job_async, Pool.ASYNC),
            (handlers.see_job, Pool.THREAD),
            (handlers.see_job, Pool.PROCESS),
        )
    ]
    assert seen[0] == seen[1] == seen[2]


async def test_many_short_jobs_share_few_children(pools: Pools) -> None:
    runs = [a_run(handlers.odd, Pool.PROCESS, "text") for _ in range(300)]
    results = await asyncio.gather(*(pools.run(run) for run in runs))
    assert {as_json(result) for result in results} == {'"naïve ☃"'.encode()}
    assert all(run.seconds > 0 for run in runs)
