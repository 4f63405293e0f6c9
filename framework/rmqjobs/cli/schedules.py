"""`rmqjobs schedules …`: what is planned, and what the active scheduler can be asked for."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import cyclopts
from cyclopts import Parameter, validators
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from rmqjobs.amqp.asking import ask
from rmqjobs.cli.errors import INVALID, NOT_FOUND, fail
from rmqjobs.cli.options import Common, as_duration
from rmqjobs.cli.output import print_json, print_table, say
from rmqjobs.cli.preview import remarks, summary
from rmqjobs.errors import ConfigurationError, ScheduleError
from rmqjobs.plugins import load
from rmqjobs.schedule import schedule_of
from rmqjobs.scheduler.catalogue import Catalogue, Planned, read_file
from rmqjobs.timetable import Timetable
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire

app = cyclopts.App(name="schedules", help="Schedules: what is planned, and what the active scheduler can be asked for.")

Plugins = Annotated[list[str] | None, Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1, lte=10_000))]
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
    print_table(_COLUMNS, found["schedules"])
    _say_who(found)
    if found["others"]:
        say("state of other schedules, of plugins that this scheduler does not have: " + ", ".join(found["others"]))


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
    standbys = found.pop("standbys", None)
    shown = found | {name: value for name, value in definition.items() if name not in found} | {"standbys": standbys}
    print_table(("field", "value"), ({"field": name, "value": _text(value)} for name, value in shown.items()))


@app.command(name="next")
def next_(
    name: str | None = None,
    /,
    *,
    count: Annotated[int | None, Parameter(name=["--count", "-n"], validator=validators.Number(gte=1, lte=10_000))] = None,
    tz: str | None = None,
    plugin: Plugins = None,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """Show when schedules of plugins and rmqjobs.toml tick next; asks no broker.

    Parameters
    ----------
    name
        Only this one; all of them when none is named.
    count
        So many ticks of each; unless given, ten of the one that is named, and one of each otherwise.
    tz
        Show times in this zone, instead of each schedule's own.
    plugin
        A plugin to include; all installed ones when none is named.
    json
        Print JSON.
    """
    planned = _of(_catalogue(common, plugin), name)
    now, ticks = datetime.now(UTC), []
    for each in planned:
        at: datetime | None = now
        for _ in range(count or (10 if name else 1)):
            at = each.timetable.after(at) if at is not None else None
            if at is None:
                break
            ticks.append((at, each))
    ticks.sort(key=lambda tick: tick[0])
    rows = [
        {
            "at": at.astimezone(_zone(tz or each.schedule.tz)).isoformat(),
            "in": str(at - now).split(".")[0],
            "schedule": each.schedule.name,
            "type": each.schedule.type,
            "state": "paused" if each.schedule.paused else "on",
            "remark": each.timetable.remark(at),
        }
        for at, each in ticks
    ]
    _print(("at", "in", "schedule", "type", "state", "remark"), rows, json=json)


@app.command
def preview(
    name: str | None = None,
    /,
    *,
    year: Flag = False,
    days: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=3660))] = 7,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    plugin: Plugins = None,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """Show how often schedules tick in a period, and what clock changes do to them; asks no broker.

    Parameters
    ----------
    name
        Only this one; all of them when none is named.
    year
        Look at a year.
    days
        Look at so many days.
    start
        Begin at this ISO 8601 time; now unless given.
    plugin
        A plugin to include; all installed ones when none is named.
    json
        Print JSON.
    """
    planned = _of(_catalogue(common, plugin), name)
    begin = _instant("--from", start) if start else datetime.now(UTC)
    end = begin + timedelta(days=366 if year else days)
    rows = [summary(each, begin, end) for each in planned]
    changes = [remark for each in planned for remark in remarks(each, begin, end)]
    if json:
        print_json({"from": begin.isoformat(), "until": end.isoformat(), "schedules": rows, "clock_changes": changes})
        return
    print_table(("schedule", "ticks", "first", "last", "words", "tz"), rows)
    total = sum(row["ticks"] for row in rows)
    say(f"{len(rows):,} schedules, {total:,} ticks from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    if changes:
        print_table(("at", "schedule", "ticks", "clock_change"), changes)


@app.command
def explain(expression: str, /, *, tz: str = "UTC", count: Count = 5, json: Flag = False) -> None:
    """Say a cron expression in words, and when it comes next; asks no broker.

    Parameters
    ----------
    expression
        Five fields in quotes, or @daily and friends. H is shown as it would be for a schedule named "example".
    tz
        Its time zone.
    count
        So many ticks.
    json
        Print JSON.
    """
    schedule = schedule_of({"name": "example", "type": "example", "cron": expression, "tz": tz})
    table, at, ticks = Timetable(schedule), datetime.now(UTC), []
    for _ in range(count):
        following = table.after(at)
        if following is None:
            break
        at = following
        ticks.append({"at": at.astimezone(_zone(tz)).isoformat(), "remark": table.remark(at)})
    if json:
        print_json({"expression": expression, "words": schedule.in_words(), "tz": tz, "next": ticks})
        return
    say(f"{schedule.in_words()} ({tz})")
    print_table(("at", "remark"), ticks)


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
    """Stop a schedule's ticks until it is resumed, over all restarts.

    Parameters
    ----------
    name
        Its name.
    """
    _changed(_ask(common, asking, "pause", {"name": name}), "paused", asking)


@app.command
def resume(name: str, /, *, asking: Asking | None = None, common: Common | None = None) -> None:
    """Let a paused schedule tick again; what passed meanwhile is not made up for.

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
    jitter: str | None = None,
    expires: str | None = None,
    start: str | None = None,
    end: str | None = None,
    expected_by: str | None = None,
    ping: str | None = None,
    asking: Asking | None = None,
    common: Common | None = None,
) -> None:
    """Add a schedule at runtime: it lives in the scheduler's state, over all restarts, until it is removed.

    Parameters
    ----------
    name
        Its name; none that a plugin or rmqjobs.toml has.
    type
        Job type of its ticks.
    data
        Their payload as JSON.
    cron
        Five fields in quotes, or @daily and friends.
    every
        An interval, such as 15m.
    at
        Once, at this ISO 8601 time.
    tz
        IANA time zone of cron, and of times without one.
    misfire
        Of missed ticks: skip, once or all.
    overlap
        skip, queue or allow.
    jitter
        Publish each tick up to so much later.
    expires
        Drop jobs that have not started within this.
    start
        No tick before.
    end
        No tick after.
    expected_by
        Alarm when no success comes within this.
    ping
        URL to call on start, success and failure.
    """
    fields: dict[str, JsonValue] = {
        "name": name, "type": type, "payload": _payload(data), "cron": cron, "every": every, "at": at, "tz": tz,
        "misfire": misfire, "overlap": overlap, "jitter": jitter, "expires": expires, "start": start, "end": end,
        "expected_by": expected_by, "ping": ping,
    }  # fmt: skip
    schedule_of({key: value for key, value in fields.items() if value is not None})  # refused here, the scheduler is not asked
    found = _ask(common, asking, "add", fields)
    if not _as_json(found, asking):
        say(f"added {found['name']}: {found['words']} ({found['tz']}), next {found['next']}")


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
    settings = (common or Common()).settings()
    limit, queue = as_duration("--timeout", (asking or Asking()).timeout), Names(settings.prefix).scheduler
    body = wire.command(verb, arguments)
    answer = wire.read_answer(asyncio.run(ask(settings, queue, wire.COMMAND, body, by=_me(), timeout=limit)))
    if "error" in answer:
        fail(f"{answer['code']} {answer['error']}", NOT_FOUND if answer.get("unknown") else INVALID)
    return {**answer["ok"], "standbys": answer.get("standbys")}


def _as_json(found: Mapping[str, Any], asking: Asking | None) -> bool:
    """Prints the answer as JSON if that was asked for."""
    if asking is None or not asking.json:
        return False
    print_json(found)
    return True


def _me() -> str:
    try:
        return f"operator {getpass.getuser()}"
    except (KeyError, OSError):
        return "operator"


def _say_who(found: Mapping[str, Any]) -> None:
    others = ", ".join(found["standbys"])
    standing_by = f"on standby: {others}" if others else "none on standby: start a second one, so that it can take over"
    say(f"{len(found['schedules']):,} schedules; active: {found['active']}; {standing_by}")


def _changed(found: Mapping[str, Any], what: str, asking: Asking | None) -> None:
    if _as_json(found, asking):
        return
    already = "" if found["changed"] else "already "
    say(f"{found['name']} is {already}{what}; next tick: {found['next'] or '-'}")


def _catalogue(common: Common | None, plugin: list[str] | None) -> Catalogue:
    common = common or Common()
    settings = common.settings(plugins=plugin or None)
    return Catalogue(load(settings.plugins), read_file(common.file))


def _of(catalogue: Catalogue, name: str | None) -> list[Planned]:
    try:
        return [catalogue.find(name)] if name else list(catalogue)
    except ScheduleError as error:
        fail(f"{error.code} {error}", NOT_FOUND)
        raise


def _print(columns: tuple[str, ...], rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(rows)
    else:
        print_table(columns, rows)


def _payload(data: str) -> JsonValue:
    try:
        payload: JsonValue = from_json(data)
    except ValueError as error:
        raise ConfigurationError("--data", f"{data!r:.80} is no JSON: {error}") from None
    return payload


def _instant(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(option, f"{text!r} is no ISO 8601 time", "Write it as 2027-01-31T03:00:00+01:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError("--tz", f"{name!r} is no IANA time zone", "Write it as Europe/Berlin") from None


def _text(value: object) -> str:
    if isinstance(value, dict):
        return to_json(value).decode()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
