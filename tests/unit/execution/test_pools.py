"""Every way a handler can end, in every pool; child processes are real."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from rmqjobs.errors import ChildDied, Interrupted, Reject, RemoteError, Retry, Snooze, TimeLimitExceeded
from rmqjobs.execution import Pools, Recycle, Run, run_alone
from rmqjobs.job import Handler, Job, Pool
from rmqjobs.wire.values import Json
from tests.unit.execution.handlers import Do, work, work_async

MakeRun = Callable[..., Run]


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(threads=2, recycle=Recycle(3, 300 * 2**20))
    yield pools
    await pools.close()


def a_run(
    what: str,
    pool: Pool,
    *,
    limit: float = 20,
    path: str = "",
    reports: list[object] | None = None,
    singleton: bool = False,
) -> Run:
    function = work_async if pool is Pool.ASYNC else work
    limits = timedelta(seconds=limit)
    handler = Handler(function, Do, pool, "test", max_runtime=limits, wants_job=True, singleton=singleton)
    payload = Do(what=what, path=path)

    def report(_job: Job, kind: str, data: object) -> None:
        if reports is not None:
            reports.append((kind, data))

    return Run(handler, payload, payload.model_dump_json().encode(), Job("1", "test.do", attempt=3, reporter=report))


async def result_of(pools: Pools, run: Run, *, isolated: bool = False) -> Any:
    """Its result; that of a child is JSON."""
    result = await pools.run(run, isolated=isolated)
    return from_json(result) if isinstance(result, Json) else result


EVERYWHERE = pytest.mark.parametrize("pool", list(Pool))


@EVERYWHERE
async def test_a_result_comes_back(pools: Pools, pool: Pool) -> None:
    result = await result_of(pools, a_run("return", pool))
    assert result["attempt"] == 3
    assert (result["pid"] == os.getpid()) == (pool is not Pool.PROCESS)


@EVERYWHERE
async def test_reports_and_checkpoints_reach_the_worker(pools: Pools, pool: Pool) -> None:
    reports: list[object] = []
    run = a_run("report", pool, reports=reports)
    assert await result_of(pools, run) == {"page": 4}
    assert reports == [("progress", {"done": 1, "total": 2, "note": "half"}), ("checkpoint", {"state": {"page": 4}})]
    assert run.job.state == {"page": 4}


@EVERYWHERE
async def test_signals_keep_their_meaning(pools: Pools, pool: Pool) -> None:
    with pytest.raises(Retry) as retry:
        await result_of(pools, a_run("retry", pool))
    with pytest.raises(Reject, match="no"):
        await result_of(pools, a_run("reject", pool))
    with pytest.raises(Snooze) as snooze:
        await result_of(pools, a_run("snooze", pool))
    assert (retry.value.after, retry.value.reason) == (timedelta(seconds=9), "later")
    assert snooze.value.for_ == timedelta(seconds=3)


async def test_an_exception_of_a_child_is_plain_data(pools: Pools) -> None:
    with pytest.raises(RemoteError, match="nobody there") as caught:
        await result_of(pools, a_run("raise", Pool.PROCESS))
    assert caught.value.types[:3] == ("ConnectionRefusedError", "ConnectionError", "OSError")
    assert "handlers.py" in caught.value.traceback


async def test_what_cannot_be_pickled_costs_nothing(pools: Pools) -> None:
    with pytest.raises(RemoteError, match="cannot be pickled"):
        await result_of(pools, a_run("unpicklable", Pool.PROCESS))
    assert "lambda" in str(await result_of(pools, a_run("odd", Pool.PROCESS)))


@pytest.mark.parametrize(("what", "said"), [("exit", "exited with code 3"), ("segfault", "killed by SIGSEGV")])
async def test_a_dead_child_costs_its_job_alone(pools: Pools, what: str, said: str) -> None:
    neighbour = asyncio.create_task(result_of(pools, a_run("report", Pool.PROCESS)))
    with pytest.raises(ChildDied, match=said):
        await result_of(pools, a_run(what, Pool.PROCESS))
    assert await neighbour == {"page": 4}
    assert await result_of(pools, a_run("report", Pool.PROCESS)) == {"page": 4}


async def test_a_handler_that_forks_answers_once(pools: Pools) -> None:
    assert await result_of(pools, a_run("fork", Pool.PROCESS)) == "the original"
    assert await result_of(pools, a_run("report", Pool.PROCESS)) == {"page": 4}


@pytest.mark.parametrize("what", ["sleep", "deaf"])
async def test_the_time_limit_kills_a_child_for_certain(pools: Pools, what: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(TimeLimitExceeded, match=r"handlers\.work .* 0:00:01"):
            await run_alone(pools, a_run(what, Pool.PROCESS, limit=1))


async def test_what_a_dead_child_has_started_dies_with_it(pools: Pools, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(ChildDied):
        await result_of(pools, a_run("grandchild", Pool.PROCESS, path=str(mark)))
    await asyncio.sleep(2.5)
    assert not mark.exists()


async def test_the_time_limit_interrupts_a_thread_between_bytecodes(pools: Pools) -> None:
    run = a_run("spin", Pool.THREAD, limit=0.2)
    try:
        assert await run_alone(pools, run) == "cancelled"  # it looked at job.cancelled first: its work is done
    except TimeLimitExceeded:
        pass
    assert run.job.cancelled
    assert await result_of(pools, a_run("report", Pool.THREAD)) == {"page": 4}


async def test_the_time_limit_cancels_a_coroutine(pools: Pools) -> None:
    async def forever(payload: Do) -> None:
        await asyncio.sleep(30)

    handler = Handler(forever, Do, Pool.ASYNC, "test", max_runtime=timedelta(seconds=0.1))
    with pytest.raises(TimeLimitExceeded):
        await run_alone(pools, Run(handler, Do(what=""), b"{}", Job("1", "test.do")))
    await asyncio.sleep(0)  # the cancellation is used up: the task goes on


async def test_a_stop_in_the_moment_of_return_does_not_hit_what_follows(pools: Pools) -> None:
    runs: list[Run] = []

    async def stops_itself(payload: Do) -> str:
        runs[0].stop(Interrupted("late"))
        return "done"

    handler = Handler(stops_itself, Do, Pool.ASYNC, "test")
    runs.append(Run(handler, Do(what=""), b"{}", Job("1", "test.do")))
    assert await pools.run(runs[0]) == "done"
    await asyncio.sleep(0.01)


@EVERYWHERE
async def test_a_stop_ends_the_run_with_its_reason(pools: Pools, pool: Pool) -> None:
    if pool is Pool.ASYNC:

        async def forever(payload: Do) -> None:
            await asyncio.sleep(30)

        run = Run(Handler(forever, Do, pool, "test"), Do(what=""), b"{}", Job("1", "test.do"))
    else:
        run = a_run("spin" if pool is Pool.THREAD else "sleep", pool)
    ended = asyncio.create_task(pools.run(run))
    await asyncio.sleep(0.5)
    run.stop(Interrupted("the worker drains"))
    try:
        assert await ended == "cancelled"
        assert pool is Pool.THREAD
    except Interrupted as error:
        assert str(error) == "the worker drains"


async def test_a_child_that_used_much_memory_is_replaced(pools: Pools) -> None:
    first = await result_of(pools, a_run("return", Pool.PROCESS))
    greedy = await result_of(pools, a_run("gorge", Pool.PROCESS))
    after = await result_of(pools, a_run("return", Pool.PROCESS))
    assert first["pid"] == greedy["pid"] != after["pid"]


async def test_children_are_replaced_after_so_many_jobs(pools: Pools) -> None:
    pids = [(await result_of(pools, a_run("return", Pool.PROCESS)))["pid"] for _ in range(6)]
    assert pids[0] == pids[2] != pids[3] == pids[5]


async def test_an_isolated_run_leaves_this_process_whatever_its_pool(pools: Pools) -> None:
    result = await result_of(pools, a_run("return", Pool.ASYNC), isolated=True)
    assert result["pid"] != os.getpid()


async def test_many_threads_results_arrive(pools: Pools) -> None:
    results = await asyncio.gather(*(result_of(pools, a_run("return", Pool.THREAD)) for _ in range(500)))
    assert len(results) == 500


async def test_a_singletons_child_ends_itself_when_its_worker_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = Pools(threads=1, lease=timedelta(seconds=0.4))
    assert await result_of(pools, a_run("return", Pool.PROCESS, singleton=True)), "it has answered in time"
    await asyncio.sleep(0.8)
    assert await result_of(pools, a_run("nap", Pool.PROCESS, singleton=True)) == "rested", (
        "signs of life keep it going, idle or not"
    )
    frozen = asyncio.Event()

    async def silence(*_arguments: object) -> None:
        await frozen.wait()

    monkeypatch.setattr("rmqjobs.execution.processes._give_signs_of_life", silence)
    with pytest.raises(ChildDied, match="SIGKILL"):
        await asyncio.wait_for(result_of(pools, a_run("nap", Pool.PROCESS, singleton=True)), 1)
    assert await result_of(pools, a_run("nap", Pool.PROCESS)) == "rested", "others may go on"
    await pools.close()


async def test_a_busy_child_keeps_nobody_waiting_while_another_is_idle() -> None:
    pools = Pools(threads=1, children=2)
    ended: list[str] = []

    async def go(what: str) -> None:
        await result_of(pools, a_run(what, Pool.PROCESS))
        ended.append(what)

    await asyncio.gather(go("return"), go("return"))  # both are up
    ended.clear()
    async with asyncio.TaskGroup() as group:
        for what in ("nap", *["return"] * 20):
            group.create_task(go(what))
    assert ended == [*["return"] * 20, "nap"]
    await pools.close()


async def test_what_a_killed_child_held_runs_in_another() -> None:
    pools = Pools(threads=1, children=1)
    begun: list[object] = []
    first, held = a_run("sleep", Pool.PROCESS, reports=begun), [a_run("report", Pool.PROCESS) for _ in range(3)]
    running = asyncio.create_task(result_of(pools, first))
    others = [asyncio.create_task(result_of(pools, run)) for run in held]
    while not begun:
        await asyncio.sleep(0.01)
    first.stop(Interrupted("enough"))
    with pytest.raises(Interrupted):
        await running
    assert await asyncio.gather(*others) == [{"page": 4}] * 3
    await pools.close()


async def test_what_waits_for_a_child_can_be_stopped() -> None:
    pools = Pools(threads=1, children=1)
    begun: list[object] = []
    first, second, third = (a_run("nap", Pool.PROCESS, reports=begun) for _ in range(3))
    running, following, waiting = (asyncio.create_task(result_of(pools, run)) for run in (first, second, third))
    while not begun:
        await asyncio.sleep(0.01)
    pools.shed(Interrupted("goes back"), keep=1)
    with pytest.raises(Interrupted, match="goes back"):
        await waiting
    second.stop(Interrupted("drains"))
    with pytest.raises(Interrupted, match="drains"):
        await following
    assert await running == "rested"
    assert not second.seconds, "it never began"
    await pools.close()


async def test_children_that_never_begin_anything_cost_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    pools = Pools(threads=1, children=1)
    for _ in range(2):
        with pytest.raises(ChildDied, match="exited with code 1"):
            await pools.run(a_run("return", Pool.PROCESS))
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        await pools.run(a_run("return", Pool.PROCESS))
    await pools.close()
