"""`rmqjobs queues`: what waits where, and who may take it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import cyclopts
from cyclopts import Parameter, validators

from rmqjobs.cli.confirming import confirm, confirm_by_name
from rmqjobs.cli.errors import NOT_FOUND, TIMED_OUT, fail, say
from rmqjobs.cli.known import WHERE_TO_LOOK, who, work_queues
from rmqjobs.cli.options import Common, Flag, as_duration
from rmqjobs.cli.output import age, print_json, print_table
from rmqjobs.cli.progress import progress
from rmqjobs.control import Verb, Word
from rmqjobs.operations.operator import Operator, operator
from rmqjobs.operations.queues import QueueState, move, purge, states
from rmqjobs.settings import Settings

app = cyclopts.App(name="queues", help="Work queues: list, show, pause, resume, drain, purge, move.")
ResultT = TypeVar("ResultT")
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="")]
Limit = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]

_COLUMNS = ("queue", "ready", "running", "dead", "consumers", "arriving", "leaving", "paused")
_ANSWER_WITHIN = timedelta(seconds=1)
_LOOK_EVERY = 0.5


@app.command(name="list")
def list_(*, json: Flag = False, common: Common | None = None) -> None:
    """List work queues; without the management API, running jobs and rates are unknown.

    Parameters
    ----------
    json
        Print JSON.
    """
    found = _of_all((common or Common()).settings())
    if json:
        print_json([each.record for each in found])
        return
    if not found:
        say(f"no work queue was found. {WHERE_TO_LOOK}")
        return
    print_table(_COLUMNS, map(_row, found))


@app.command
def show(queue: str, /, *, json: Flag = False, common: Common | None = None) -> None:
    """Show one work queue.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    json
        Print JSON.
    """
    found = _known((common or Common()).settings(), queue)
    if json:
        print_json(found.record)
        return
    print_table(("field", "value"), ({"field": name, "value": value} for name, value in _row(found).items()))


@app.command
def pause(
    queue: str,
    /,
    *,
    because: str = "",
    until: Annotated[str | None, Parameter(name="--for")] = None,
    common: Common | None = None,
) -> None:
    """Have all workers take nothing more from a queue, also those that start later. What runs goes on.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    because
        Why; it is shown wherever the queue is.
    until
        Resume by itself after this time, such as 30m.
    """
    settings = (common or Common()).settings()
    _known(settings, queue)
    ends = datetime.now(UTC) + as_duration("--for", until) if until is not None else None
    _operate(settings, lambda at_work: at_work.pause(queue, because=because, until=ends))
    say(
        f"paused {queue}" + (f" until {ends.astimezone():%Y-%m-%d %H:%M:%S %Z}" if ends else f": rmqjobs queues resume {queue}")
    )


@app.command
def resume(queue: str, /, *, because: str = "", common: Common | None = None) -> None:
    """End the pause of a queue.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    because
        Why.
    """
    settings = (common or Common()).settings()
    if _known(settings, queue).paused is None:
        say(f"{queue} is not paused")
        return
    _operate(settings, lambda at_work: at_work.resume(queue, because=because))
    say(f"resumed {queue}")


@app.command
def drain(queue: str, /, *, because: str = "", timeout: str | None = None, common: Common | None = None) -> int:
    """Pause a queue, and wait until no worker runs a job of it. Exits with 124 when the time is over.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    because
        Why.
    timeout
        Wait no longer than this, such as 5m; without it, as long as it takes.
    """
    settings = (common or Common()).settings()
    _known(settings, queue)
    limit = as_duration("--timeout", timeout).total_seconds() if timeout is not None else None
    left = _operate(settings, lambda at_work: _drained(at_work, queue, because, limit))
    for job in left:
        say(f"still runs: {job['id']} {job['type']}, for {job['elapsed_seconds']:.0f} s on {job['worker']}")
    say(f"{queue} is paused, and {len(left):,} of its jobs run. To go on: rmqjobs queues resume {queue}")
    return TIMED_OUT if left else 0


@app.command(name="purge")
def purge_(
    queue: str,
    /,
    *,
    limit: Limit = None,
    because: str = "",
    dry_run: Flag = False,
    confirm: str | None = None,
    common: Common | None = None,
) -> None:
    """Drop the jobs that wait in a queue now. For 30 days they can be restored, as dead letters.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    limit
        At most this many, the oldest first.
    because
        Why.
    dry_run
        Say what would be done, and stop.
    confirm
        The queue's name once more, instead of typing it.
    """
    settings = (common or Common()).settings()
    count = min(_known(settings, queue).ready, limit or 2**63)
    if _is_nothing(count, queue) or _is_dry(f"purge {count:,}", dry=dry_run):
        return
    confirm_by_name(f"purge {count:,} from {queue}", queue, confirm)
    with progress("purge", count) as advance:
        done = _operate(settings, lambda at_work: purge(at_work, queue, count, because=because, progress=advance))
    say(f"purged {done:,}; to bring them back: rmqjobs dlq restore --reason purged --queue {queue}")


@app.command(name="move")
def move_(
    queue: str,
    /,
    *,
    to: str,
    limit: Limit = None,
    because: str = "",
    dry_run: Flag = False,
    yes: Yes = False,
    common: Common | None = None,
) -> None:
    """Move the jobs that wait in a queue now to another one, such as the one that their handler has moved to.

    Parameters
    ----------
    queue
        Its name, without the prefix.
    to
        The other queue's name.
    limit
        At most this many, the oldest first.
    because
        Why.
    dry_run
        Say what would be done, and stop.
    yes
        Do not ask.
    """
    settings = (common or Common()).settings()
    count = min(_known(settings, queue).ready, limit or 2**63)
    if _is_nothing(count, queue) or _is_dry(f"move {count:,} to {to}", dry=dry_run):
        return
    confirm(f"move {count:,} from {queue} to {to}", yes=yes)
    with progress("move", count) as advance:
        done = _operate(settings, lambda at_work: move(at_work, queue, to, count, because=because, progress=advance))
    say(f"moved {done:,}")


def _operate(settings: Settings, act: Callable[[Operator], Awaitable[ResultT]]) -> ResultT:
    async def work() -> ResultT:
        async with operator(settings, by=who()) as at_work:
            return await act(at_work)

    return asyncio.run(work())


def _of_all(settings: Settings, *more: str) -> list[QueueState]:
    return _operate(settings, lambda at_work: states(at_work, [*work_queues(settings), *more]))


def _known(settings: Settings, queue: str) -> QueueState:
    found = _of_all(settings, queue)
    one = next((each for each in found if each.queue == queue), None)
    if one is None:
        known = ", ".join(each.queue for each in found) or "none"
        fail(f"there is no queue {queue!r}. Known: {known}. {WHERE_TO_LOOK}", NOT_FOUND)
    return one


async def _drained(at_work: Operator, queue: str, because: str, limit: float | None) -> list[dict[str, Any]]:
    """Pauses the queue and waits; returns the jobs that still run when the time is over."""
    end = time.monotonic() + limit if limit is not None else None
    await at_work.pause(queue, because=because)
    while True:
        reports = await at_work.ask(Verb.PING, within=_ANSWER_WITHIN)
        left = [job | {"worker": report["worker"]} for report in reports for job in report["jobs"] if job["queue"] == queue]
        unpaused = [report for report in reports if queue in report["queues"] and queue not in report["paused"]]
        if not left and not unpaused:
            return []
        if end is not None and time.monotonic() >= end:
            return left
        await asyncio.sleep(_LOOK_EVERY)


def _is_nothing(count: int, queue: str) -> bool:
    if not count:
        say(f"nothing waits in {queue}")
    return not count


def _is_dry(deed: str, *, dry: bool) -> bool:
    if dry:
        say(f"dry run: nothing was done. To {deed}, run it without --dry-run")
    return dry


def _row(state: QueueState) -> dict[str, object]:
    return state.record | {
        "arriving": None if state.arriving is None else f"{state.arriving:.1f}/s",
        "leaving": None if state.leaving is None else f"{state.leaving:.1f}/s",
        "paused": _words(state.paused) if state.paused else None,
    }


def _words(word: Word) -> str:
    until = f", until {word.until.astimezone():%H:%M:%S %Z}" if word.until else ""
    return f"{age(word.at)} {word}{until}"
