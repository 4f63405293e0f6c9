"""Writes the pages of docs/reference that the code itself knows best; `--check` says which are out of date."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from rmqjobs import errors, hookspecs
from rmqjobs.errors import RmqJobsError
from rmqjobs.job import Handler, Payload, Pool
from rmqjobs.schedule import Schedule, short
from rmqjobs.settings import Settings, environment_name
from rmqjobs.topology import LADDER_LEVELS, build, scheduling

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Made by tools/reference.py; change the code, then run: make reference -->\n\n"
COMMANDS = (
    "worker", "scheduler", "schedules", "schedules list", "schedules show", "schedules next", "schedules preview",
    "schedules explain", "schedules run", "schedules pause", "schedules resume", "schedules add", "schedules remove",
    "publish", "events", "jobs", "jobs show", "jobs why", "jobs logs", "jobs wait", "jobs list",
    "jobs cancel", "queues", "queues list", "queues show", "queues pause", "queues resume", "queues drain", "queues purge",
    "queues move", "workers", "workers list", "workers show", "workers ping", "workers stacks", "workers drain",
    "workers resume", "workers stop", "web",
    "dlq", "dlq list", "dlq show", "dlq groups", "dlq stats", "dlq replay", "dlq drop", "dlq restore",
    "plugins", "plugins list", "plugins check", "topology", "topology show", "topology apply",
    "topology permissions", "doctor",
)  # fmt: skip


class _Example(Payload, type="video.transcode"):
    pass


def settings_page() -> str:
    """Every setting with its default and meaning."""
    rows = [
        f"| `{name}` | `{environment_name(name)}` | `{field.default!s}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Order: command-line option, then environment, then `rmqjobs.toml`, then the default.",
            "Durations are written as `25s`, `1h30m`, seconds or ISO 8601.",
            "",
            "| in `rmqjobs.toml` | environment | default | meaning |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def errors_page() -> str:
    """The error tree and every code."""
    rows = [f"| `{kind.code}` | `{kind.__name__}` | {_first_line(kind)} |" for kind in _tree(RmqJobsError)]
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    return "\n".join(
        ["# Errors", "", "```", *tree.splitlines(), "```", "", "| code | class | meaning |", "|---|---|---|", *rows]
    )


def hooks_page() -> str:
    """Every hook with its signature."""
    parts = ["# Hooks", "", inspect.cleandoc(hookspecs.__doc__ or "").split("\n", 2)[2]]
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("rmqjobs_"):
            signature = str(inspect.signature(function)).replace("'", "")
            parts += ["", f"## `{name}`", "", "```python", f"def {name}{signature}", "```", "", inspect.getdoc(function) or ""]
    return "\n".join(parts)


def topology_page() -> str:
    """Names and arguments, for one handler as an example."""
    handler = Handler(settings_page, _Example, Pool.PROCESS, "video.process", plugin="video")
    topology = build([handler]) + scheduling()
    lines = [
        "# Topology, version 1",
        "",
        "This is what `rmqjobs topology show` prints for one handler of `video.transcode` in the process pool.",
    ]
    lines += [
        "Levels 02 to 26 of the delay ladder are left out. Level n waits 2ⁿ seconds.",
        "",
        "| exchange | kind | arguments |",
        "|---|---|---|",
    ]
    lines += [f"| `{e.name}` | {e.kind} | {_arguments(e.arguments)} |" for e in topology.exchanges if _shown(e.name)]
    lines += ["", "| queue | arguments |", "|---|---|"]
    lines += [f"| `{queue.name}` | {_arguments(queue.arguments)} |" for queue in topology.queues if _shown(queue.name)]
    lines += ["", "| from | routing key | to |", "|---|---|---|"]
    lines += [
        f"| `{binding.source}` | `{_short(binding.key)}` | `{binding.destination}` |"
        for binding in topology.bindings
        if _shown(binding.source) and _shown(binding.destination)
    ]
    return "\n".join(lines)


def schedules_page() -> str:
    """Every field of a schedule."""
    rows = [
        f"| `{name}` | {'' if field.is_required() else f'`{_default(field.default)}`'} | {field.description} |"
        for name, field in Schedule.model_fields.items()
        if not field.exclude
    ]
    return "\n".join(
        [
            "# Fields of a schedule",
            "",
            "These fields are the same in `plugin.schedule(…)`, in a `[schedules.NAME]` table of `rmqjobs.toml` and as options",
            "of `rmqjobs schedules add` (`payload` is `--data` there). In a plugin, the plugin's name is put before `name`,",
            "and `type` is the payload's.",
            "Durations are written as `25s`, `1h30m` or `7d`; in Python they are `timedelta`.",
            "",
            "| field | default | meaning |",
            "|---|---|---|",
            *rows,
        ]
    )


def _default(value: object) -> str:
    return short(value) if isinstance(value, timedelta) else str(getattr(value, "value", value))


def commands_page() -> str:
    """The help of every command."""
    parts = ["# Commands", "", "Exit codes: " + (_cli_errors_doc().split("\n\n")[1]).replace("\n", " ")]
    for command in COMMANDS:
        ran = subprocess.run(
            [sys.executable, "-m", "rmqjobs", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={
                "COLUMNS": "110",
                "PATH": "/usr/bin:/bin",
                "NO_COLOR": "1",
                "TERM": "dumb",
                "LANG": "C.UTF-8",
                "PYTHONUTF8": "1",
            },
        )
        text = "\n".join(line.rstrip() for line in ran.stdout.strip().splitlines())
        parts += ["", f"## `rmqjobs {command}`", "", "```", text, "```"]
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "hooks.md": hooks_page,
    "topology.md": topology_page,
    "schedules.md": schedules_page,
    "commands.md": commands_page,
}


def main() -> int:
    """Writes the pages, or with `--check` compares them."""
    check, stale = "--check" in sys.argv, []
    for name, page in PAGES.items():
        text, path = NOTE + page() + "\n", FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
    if check and stale:
        print(f"out of date: {', '.join(stale)}. Run: make reference", file=sys.stderr)
        return 1
    return 0


def _tree(kind: type[RmqJobsError]) -> Iterable[type[RmqJobsError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == "rmqjobs.errors":
            yield from _tree(child)


def _first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _arguments(arguments: object) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in dict(arguments).items()) or "-"  # type: ignore[call-overload]


def _shown(name: str) -> bool:
    level = name.rpartition(".delay.")[2]
    return not (level.isdigit() and 1 < int(level) < LADDER_LEVELS - 1)


def _short(key: str) -> str:
    stars = "*." * LADDER_LEVELS
    return key.replace(stars, "*. (28 times) ") if key.startswith(stars) else key.replace("*." * 26, "*. (26 times) ")


def _cli_errors_doc() -> str:
    from rmqjobs.cli import errors as cli_errors  # noqa: PLC0415 - only for this page

    return inspect.getdoc(cli_errors) or ""


if __name__ == "__main__":
    sys.exit(main())
