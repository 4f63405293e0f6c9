"""`rmqjobs schedules …`: what is planned, and requests to the active scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import cyclopts
from cyclopts import Parameter
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from rmqjobs.cli import planned
from rmqjobs.cli.errors import INVALID, NOT_FOUND, fail, say
from rmqjobs.cli.known import who
from rmqjobs.cli.options import Common, Flag, as_duration
from rmqjobs.cli.output import print_json, print_table
from rmqjobs.errors import ConfigurationError
from rmqjobs.operations.schedules import ask_scheduler
from rmqjobs.schedule import schedule_of, short

app = cyclopts.App(name="schedules", help="Schedules: see what is planned, and ask the active scheduler to do things.")
app.command(planned.next_, name="next")
app.command(planned.preview)
app.command(planned.explain)

_TIMES = ("next", "last", "outcome_at", "waiting_since", "upcoming")
_SHORTEST, _LONGEST = timedelta(seconds=0.1), timedelta(hours=1)
_COLUMNS = ("name", "state", "when", "tz", "next", "last", "outcome", "late_seconds", "origin", "words")


@Parameter(name="*")
@dataclass(frozen=True)
class Asking:
    """How the active scheduler is asked."""

    json: Flag = False
    """Print JSON."""
    timeout: str = "5s"
    """How long to wait for the active scheduler."""


@app.command(name="list")
def list_(*, asking: Asking | None = None, common: Common | None = None) -> None:
    """List all schedules with their state, as the active scheduler has them."""
    found = _ask(common, asking, "list", {})
    if _as_json(found, asking):
        return
    print_table(_COLUMNS, map(_in_its_zone, found["schedules"]))
    _say_who(found)
    if found["others"]:
        say("the state has other schedules, of plugins that this scheduler does not have: " + ", ".join(found["others"]))


@app.command
def show(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Show everything about one schedule.

    Parameters
    ----------
    name
        Its name, such as video.cleanup.
    """
    found = _ask(common, asking, "show", {"name": name})
    if _as_json(found, asking):
        return
    definition = found.pop("definition")
    definition.pop("paused")  # what holds now is in `state`
    standbys = found.pop("standbys", None)
    shown = (
        _in_its_zone(found) | {name: value for name, value in definition.items() if name not in found} | {"standbys": standbys}
    )
    print_table(("field", "value"), ({"field": name, "value": _text(value)} for name, value in shown.items()))


@app.command
def run(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Publish a job of the schedule now, beside its plan, and print its id.

    Parameters
    ----------
    name
        Its name.
    """
    found = _ask(common, asking, "run", {"name": name})
    if not _as_json(found, asking):
        print(found["job_id"])  # noqa: T201 - the command's result


@app.command
def pause(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Stop a schedule's ticks until it is resumed, across restarts.

    Parameters
    ----------
    name
        Its name.
    """
    _changed(_ask(common, asking, "pause", {"name": name}), "paused", asking)


@app.command
def resume(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Let a paused schedule tick again; times that passed meanwhile are not made up for.

    Parameters
    ----------
    name
        Its name.
    """
    _changed(_ask(common, asking, "resume", {"name": name}), "resumed", asking)


@app.command
def add(
    name: str,
    /,
    *,
    type: str,  # noqa: A002 - the option's name
    data: str = "{}",
    cron: str | None = None,
    every: str | None = None,
    at: str | None = None,
    tz: str | None = None,
    misfire: str | None = None,
    overlap: str | None = None,
    misfire_limit: int | None = None,
    misfire_grace: str | None = None,
    paused: Flag = False,
    jitter: str | None = None,
    expires: str | None = None,
    start: str | None = None,
    end: str | None = None,
    expected_by: str | None = None,
    ping: str | None = None,
    asking: Asking | None = None,
    common: Common | None = None,
) -> None:
    """Add a schedule at runtime: it stays in the scheduler's state, across restarts, until it is removed.

    Parameters
    ----------
    name
        Its name, which no schedule of a plugin or of rmqjobs.toml may have.
    type
        Job type of its ticks.
    data
        Payload of its ticks, as JSON.
    cron
        Five fields in quotes, or @daily and friends.
    every
        An interval, such as 15m.
    at
        Once, at this ISO 8601 time.
    tz
        IANA time zone of cron, and of times without one.
    misfire
        What happens to missed ticks: skip, once or all.
    misfire_limit
        With all: at most this many run, the newest ones.
    misfire_grace
        A tick that is at most this late counts as late, not as missed.
    paused
        No ticks until it is resumed.
    overlap
        skip, queue or allow.
    jitter
        Publish each tick later by up to this much.
    expires
        Drop jobs that have not started within this time.
    start
        No ticks before this time.
    end
        No ticks after this time.
    expected_by
        Raise an alarm when no success comes within this time.
    ping
        URL to call on start, success and failure.
    """
    fields: dict[str, JsonValue] = {
        "name": name, "type": type, "payload": _payload(data), "cron": cron, "every": every, "at": at, "tz": tz,
        "misfire": misfire, "misfire_limit": misfire_limit, "misfire_grace": misfire_grace, "overlap": overlap,
        "paused": paused or None, "jitter": jitter, "expires": expires, "start": start, "end": end,
        "expected_by": expected_by, "ping": ping,
    }  # fmt: skip
    schedule_of({key: value for key, value in fields.items() if value is not None})  # a wrong one is refused here
    found = _ask(common, asking, "add", fields)
    if not _as_json(found, asking):
        following = f"next {found['next']}" if found["next"] else f"run it with: rmqjobs schedules run {found['name']}"
        say(f"added {found['name']}: {found['words']} ({found['tz']}), {following}")


@app.command
def remove(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Remove a schedule that was added at runtime, or what is left of one that no plugin has any more.

    Parameters
    ----------
    name
        Its name.
    """
    found = _ask(common, asking, "remove", {"name": name})
    if not _as_json(found, asking):
        say(f"removed {found['removed']}")


def _ask(common: Common | None, asking: Asking | None, verb: str, arguments: Mapping[str, JsonValue]) -> dict[str, Any]:
    settings = (common or Common()).settings(lenient=True)  # a broken file must not keep an operator from pausing
    limit = as_duration("--timeout", (asking or Asking()).timeout)
    if not _SHORTEST <= limit <= _LONGEST:
        raise ConfigurationError(
            "--timeout", f"{short(limit)} is out of range", f"From {short(_SHORTEST)} to {short(_LONGEST)}"
        )
    answer = asyncio.run(ask_scheduler(settings, verb, arguments, by=who(), timeout=limit))
    if "error" in answer:
        fail(f"{answer['code']} {answer['error']}", NOT_FOUND if answer.get("unknown") else INVALID)
    return {**answer["ok"], "standbys": answer.get("standbys")}


def _as_json(found: Mapping[str, Any], asking: Asking | None) -> bool:
    """Prints the answer as JSON if that was asked for."""
    if asking is None or not asking.json:
        return False
    print_json(found)
    return True


def _in_its_zone(described: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule's times in the zone it is written in, as people think of them; JSON has UTC."""
    zone = ZoneInfo(described["tz"])

    def local(value: Any) -> Any:
        if isinstance(value, list):
            return [local(each) for each in value]
        return datetime.fromisoformat(value).astimezone(zone).isoformat(timespec="seconds") if value else value

    times = {name: local(described[name]) for name in _TIMES if name in described}
    return {**described, **times}


def _say_who(found: Mapping[str, Any]) -> None:
    others = ", ".join(found["standbys"])
    standing_by = f"on standby: {others}" if others else "none on standby: start a second one, so that it can take over"
    say(f"{len(found['schedules']):,} schedules; active: {found['active']}; {standing_by}")


def _changed(found: Mapping[str, Any], what: str, asking: Asking | None) -> None:
    if _as_json(found, asking):
        return
    already = "" if found["changed"] else "already "
    say(f"{found['name']} is {already}{what}; next tick: {found['next'] or '-'}")


def _payload(data: str) -> JsonValue:
    try:
        payload: JsonValue = from_json(data)
    except ValueError as error:
        raise ConfigurationError("--data", f"{data!r:.80} is not JSON: {error}") from None
    return payload


def _text(value: object) -> str:
    if isinstance(value, dict):
        return to_json(value).decode()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
