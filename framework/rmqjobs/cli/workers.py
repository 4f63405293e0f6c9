"""`rmqjobs workers`: who runs, what runs there, and where it is. Workers answer themselves."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import cyclopts

from rmqjobs.cli.confirming import confirm
from rmqjobs.cli.errors import NOT_FOUND, UNREACHABLE, USAGE, fail, say
from rmqjobs.cli.known import who
from rmqjobs.cli.options import Common, Flag, as_duration
from rmqjobs.cli.output import age, clean, console, print_json, print_table
from rmqjobs.cli.queues import Yes
from rmqjobs.control import WHOLE, Verb
from rmqjobs.operations.operator import operator
from rmqjobs.operations.roster import roster
from rmqjobs.settings import Settings

app = cyclopts.App(name="workers", help="Running workers: list, show, ping, stacks, drain, resume, stop.")
_COLUMNS = ("worker", "state", "running", "slots", "queues", "memory", "lag", "started", "seen")
_WITHIN = "2s"


@app.command(name="list")
def list_(*, timeout: str = _WITHIN, json: Flag = False, common: Common | None = None) -> None:
    """List workers and schedulers: those that answer, and those that the journal has heard of lately.

    Parameters
    ----------
    timeout
        How long to wait for answers.
    json
        Print JSON.
    """
    found = asyncio.run(roster((common or Common()).settings(), by=who(), within=as_duration("--timeout", timeout)))
    if json:
        print_json(found)
        return
    if not found:
        say("no worker answers, and the journal has heard of none lately. Start one with: rmqjobs worker")
        return
    print_table(_COLUMNS, map(_row, found))


@app.command
def show(worker: str, /, *, timeout: str = _WITHIN, json: Flag = False, common: Common | None = None) -> None:
    """Show a worker and the jobs that it runs.

    Parameters
    ----------
    worker
        Its name, or a unique beginning of it.
    timeout
        How long to wait for an answer.
    json
        Print JSON.
    """
    report = _the_one(common, Verb.PING, worker, timeout)
    if json:
        print_json(report)
        return
    jobs = report.pop("jobs")
    shown = _row(report) | {
        "version": report["version"],
        "plugins": _words(report["plugins"]),
        "paused": _words(report["paused"]),
    }
    print_table(("field", "value"), ({"field": name, "value": value} for name, value in shown.items()))
    if jobs:
        print_table(("job", "type", "queue", "attempt", "elapsed", "limit"), map(_job, jobs))


@app.command
def stacks(worker: str = "", /, *, timeout: str = _WITHIN, json: Flag = False, common: Common | None = None) -> None:
    """Print where every running job is in its code now: async tasks, threads and child processes.

    Parameters
    ----------
    worker
        Its name, or the beginning of it; all workers when it is left out.
    timeout
        How long to wait for answers.
    json
        Print JSON.
    """
    reports = _asked(common, Verb.STACKS, worker, timeout)
    if json:
        print_json(reports)
        return
    terminal = console()
    for report in reports:
        terminal.print(f"[bold]{clean(report['worker'])}[/bold]  {report['running']:,} running")
        for job in report["jobs"]:
            terminal.print(f"  [cyan]{clean(job['id'])}[/cyan]  {clean(job['type'])}  {job['elapsed_seconds']:.1f} s")
            for line in job["stack"] or ["where it is cannot be seen: it waits to begin, or has just ended"]:
                terminal.print(f"    [dim]{clean(line)}[/dim]")


@app.command
def ping(worker: str = "", /, *, timeout: str = _WITHIN, json: Flag = False, common: Common | None = None) -> None:
    """Print the names of workers that answer. Exits with 6 when none does.

    Parameters
    ----------
    worker
        Its name, or the beginning of it; all workers when it is left out.
    timeout
        How long to wait for answers.
    json
        Print JSON.
    """
    reports = _asked(common, Verb.PING, worker, timeout)
    if json:
        print_json(reports)
        return
    for report in reports:
        print(clean(report["worker"]))  # noqa: T201 - the command's result


@app.command
def drain(worker: str, /, *, because: str = "", timeout: str = _WITHIN, common: Common | None = None) -> None:
    """Have a worker take no more jobs, until it is resumed or ends; what it runs goes on.

    Parameters
    ----------
    worker
        Its name, or a unique beginning of it.
    because
        Why; it is in the worker's log and in the journal.
    timeout
        How long to wait for an answer.
    """
    report = _the_one(common, Verb.DRAIN, worker, timeout, because)
    say(f"{report['worker']} takes no more jobs; {report['running']:,} running")


@app.command
def resume(worker: str, /, *, because: str = "", timeout: str = _WITHIN, common: Common | None = None) -> None:
    """Have a drained worker take jobs again.

    Parameters
    ----------
    worker
        Its name, or a unique beginning of it.
    because
        Why.
    timeout
        How long to wait for an answer.
    """
    say(f"{_the_one(common, Verb.UNDRAIN, worker, timeout, because)['worker']} takes jobs again")


@app.command
def stop(worker: str, /, *, because: str = "", timeout: str = _WITHIN, yes: Yes = False, common: Common | None = None) -> None:
    """Stop a worker as SIGTERM does: it drains within its grace period, then ends. A parent of several starts another one.

    Parameters
    ----------
    worker
        Its name, or a unique beginning of it.
    because
        Why.
    timeout
        How long to wait for an answer.
    yes
        Do not ask.
    """
    report = _the_one(common, Verb.PING, worker, timeout)
    confirm(f"stop {report['worker']}, which runs {report['running']:,} jobs", yes=yes)
    _asked(common, Verb.STOP, f"{report['worker']}{WHOLE}", timeout, because)
    say(f"{report['worker']} stops")


def _asked(common: Common | None, verb: Verb, worker: str, timeout: str, because: str = "") -> list[dict[str, Any]]:
    settings, within = (common or Common()).settings(), as_duration("--timeout", timeout)
    found = asyncio.run(_ask(settings, verb, worker, because, within))
    if not found:
        which = f"no worker whose name begins with {worker!r}" if worker else "no worker"
        fail(f"{which} answers within {timeout}. See: rmqjobs workers list", UNREACHABLE)
    return found


def _the_one(common: Common | None, verb: Verb, worker: str, timeout: str, because: str = "") -> dict[str, Any]:
    """The report of one worker, which is told nothing unless there is just one."""
    found = _asked(common, Verb.PING, worker, timeout)
    exact = [report for report in found if report["worker"] == worker]
    if len(found) > 1 and not exact:
        fail(f"{worker!r} is the beginning of {len(found):,} workers: {', '.join(each['worker'] for each in found[:3])}", USAGE)
    one = (exact or found)[0]
    if verb is Verb.PING:
        return one
    answers = _asked(common, verb, f"{one['worker']}{WHOLE}", timeout, because)
    if (problem := answers[0].get("error")) is not None:
        fail(f"{one['worker']} could not do it: {problem}", NOT_FOUND)
    return answers[0]


async def _ask(settings: Settings, verb: Verb, worker: str, because: str, within: timedelta) -> list[dict[str, Any]]:
    async with operator(settings, by=who()) as at_work:
        return await at_work.ask(verb, worker, because=because, within=within)


def _row(report: dict[str, Any]) -> dict[str, object]:
    lag, memory = report.get("loop_lag_seconds"), report.get("memory_bytes")
    return {
        "worker": report["worker"],
        "state": report["state"],
        "running": report.get("running"),
        "slots": _words(report.get("slots")),
        "queues": ", ".join(report.get("queues") or ()),
        "memory": f"{memory / 2**20:,.0f} MB" if memory is not None else None,
        "lag": f"{lag * 1000:,.0f} ms" if lag is not None else None,
        "started": age(datetime.fromisoformat(report["started_at"])) if report.get("started_at") else None,
        "seen": age(datetime.fromisoformat(report["seen_at"])) if report.get("seen_at") else "now",
    }


def _words(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items())


def _job(job: dict[str, Any]) -> dict[str, object]:
    limit = job["limit_seconds"]
    return {
        "job": job["id"],
        **{name: job[name] for name in ("type", "queue", "attempt")},
        "elapsed": f"{job['elapsed_seconds']:,.1f} s",
        "limit": f"{limit:,.0f} s" if limit is not None else None,
    }
