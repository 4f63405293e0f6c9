"""How dead letters are shown: as a row, as a JSON record, or whole."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rmqjobs.cli.output import age, clean, console, shortened
from rmqjobs.deadletters.groups import Group
from rmqjobs.wire.deadletters import DeadLetter

GROUP_COLUMNS = ("fingerprint", "count", "error", "types", "queues", "versions", "first", "last")
COLUMNS = ("id", "type", "queue", "reason", "attempts", "failed", "error", "fingerprint")


def row(letter: DeadLetter) -> dict[str, object]:
    """A row of the list."""
    error = f"{letter.error_type}: {letter.error_message}" if letter.error_type else ""
    when = age(letter.failed_at)
    return {**{name: getattr(letter, name, None) for name in COLUMNS}, "failed": when, "error": shortened(error)}


def record(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """The JSON of a dead letter: a contract."""
    shown: dict[str, Any] = {
        "id": letter.id,
        "type": letter.type,
        "queue": letter.queue,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "replays": letter.replays,
        "first_failed_at": _iso(letter.first_failed_at),
        "failed_at": _iso(letter.failed_at),
        "error_type": letter.error_type,
        "error_message": letter.error_message,
        "fingerprint": letter.fingerprint,
        "worker": letter.worker,
        "plugin_version": letter.plugin_version,
        "dropped_at": _iso(letter.dropped_at),
    }
    if whole:
        shown |= {"traceback": letter.traceback, "payload": _payload(letter), "headers": dict(letter.headers)}
    return shown


def print_whole(letter: DeadLetter) -> None:
    """Prints all that is known of one."""
    shown = record(letter)
    width = max(map(len, shown))
    terminal = console()
    for name, value in shown.items():
        text = "-" if value in (None, "") else clean(value)
        terminal.print(f"[bold]{name.replace('_', ' '):<{width}}[/bold]  {text}")
    payload = _payload(letter)
    text = json.dumps(payload, indent=2, ensure_ascii=False) if not isinstance(payload, str) else payload
    for title, part in (
        ("payload", text),
        ("headers", str(dict(letter.headers) or "-")),
        ("traceback", letter.traceback or "-"),
    ):
        terminal.print(f"\n[bold]{title}[/bold]")
        terminal.print(part, markup=False)


def _payload(letter: DeadLetter) -> object:
    try:
        return json.loads(letter.body)
    except (ValueError, RecursionError):
        return letter.body.decode(errors="backslashreplace")


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds") if at else None


def counts(counter: dict[str, int]) -> str:
    """`rejected 3, time limit 1`, the most frequent first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items(), key=lambda item: -item[1]))


def group_row(group: Group) -> dict[str, object]:
    """A row of the list of causes."""
    error = f"{group.error_type}: {group.error_message}" if group.error_type else group.reason
    sets = {name: ", ".join(sorted(getattr(group, name))) for name in ("types", "queues", "versions")}
    times = {"first": age(group.first), "last": age(group.last)}
    return {"fingerprint": group.fingerprint, "count": group.count, "error": shortened(error), **sets, **times}


def group_record(group: Group) -> dict[str, Any]:
    """The JSON of a group: a contract."""
    sets = {name: sorted(getattr(group, name)) for name in ("types", "queues", "reasons", "versions")}
    plain = ("fingerprint", "count", "error_type", "error_message")
    times = {"first": _iso(group.first), "last": _iso(group.last)}
    return {name: getattr(group, name) for name in plain} | sets | times
