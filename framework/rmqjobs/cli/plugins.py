"""`rmqjobs plugins list | check`."""

from __future__ import annotations

import cyclopts

from rmqjobs import plugins
from rmqjobs.cli.errors import USAGE, say
from rmqjobs.cli.options import Common
from rmqjobs.cli.output import print_json, print_table
from rmqjobs.errors import PluginError

app = cyclopts.App(name="plugins", help="Installed plugins.")


@app.command(name="list")
def list_(*, json: bool = False) -> None:
    """List installed plugins, without importing any.

    Parameters
    ----------
    json
        Print JSON.
    """
    rows = [
        {"name": name, "distribution": distribution, "version": version} for name, distribution, version in plugins.installed()
    ]
    if json:
        print_json(rows)
    elif rows:
        print_table(("name", "distribution", "version"), rows)
    else:
        say("no plugin is installed. A plugin is a package with an entry point in the group 'rmqjobs.plugins'")


@app.command
def check(names: list[str] | None = None, /, *, json: bool = False) -> int:
    """Load plugins as a worker would and list their handlers; exits with 2 when one cannot be used.

    Parameters
    ----------
    names
        Plugins to check; all installed ones when none is named.
    json
        Print JSON.
    """
    allowed = Common().settings().allowed_plugins
    problems, rows = [], []
    wanted = names or sorted({name for name, _, _ in plugins.installed(allowed)})
    for name in wanted:
        try:
            rows += _rows(plugins.load([name], allowed=allowed))
        except PluginError as error:
            problems.append(f"{error.code} {error}")
    if not problems and len(wanted) > 1:
        try:
            plugins.load(wanted, allowed=allowed)  # some errors only show together: one job type, two handlers
        except PluginError as error:
            problems.append(f"{error.code} {error}")
    if json:
        print_json({"handlers": rows, "problems": problems})
    elif rows:
        print_table(("plugin", "type", "pool", "queue", "max_runtime", "attempts", "handler"), rows)
    for problem in problems:
        say(f"error: {problem}")
    return USAGE if problems else 0


def _rows(registry: plugins.Registry) -> list[dict[str, object]]:
    return [
        {
            "plugin": handler.plugin,
            "type": handler.job_type,
            "pool": handler.pool.value,
            "queue": handler.queue,
            "max_runtime": str(handler.max_runtime),
            "attempts": handler.retry.max_attempts,
            "handler": handler.name,
        }
        for handler in registry.handlers.values()
    ]
