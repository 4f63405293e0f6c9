"""The command line: `rmqjobs`. Floor 7.

One file per noun; each is imported only when its command runs, so that `--help` is quick. Data goes to stdout, all else to
stderr. Exit codes are in `errors`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

import cyclopts
from setproctitle import setproctitle

from rmqjobs.cli import errors
from rmqjobs.failures import whole_characters
from rmqjobs.settings import mask_url

app = cyclopts.App(
    name="rmqjobs",
    help="Background jobs on RabbitMQ: typed messages, handlers as plugins, nothing lost.",
    version=lambda: version("rmqjobs"),
    version_flags=["--version", "-V"],
)
app.command("rmqjobs.cli.worker:worker", name="worker", help="Run the handlers of plugins.")
app.command("rmqjobs.cli.scheduler:scheduler", name="scheduler", help="Publish the ticks of schedules; any number may run.")
app.command("rmqjobs.cli.schedules:app", name="schedules", help="Schedules: list, show, next, preview, run, pause, resume, …")
app.command("rmqjobs.cli.publish:publish", name="publish", help="Publish one job.")
app.command("rmqjobs.cli.jobs:app", name="jobs", help="Where jobs are: list, show, why, logs, wait, cancel.")
app.command("rmqjobs.cli.queues:app", name="queues", help="Work queues: list, show, pause, resume, drain, purge, move.")
app.command("rmqjobs.cli.workers:app", name="workers", help="Running workers: list, show, ping, stacks, drain, …")
app.command("rmqjobs.cli.dlq:app", name="dlq", help="Review dead letters: groups, list, show, replay, drop, restore, …")
app.command("rmqjobs.cli.web:web", name="web", help="Serve the dashboard and the HTTP API.")
app.command("rmqjobs.cli.events:events", name="events", help="Read the journal: what happened to jobs.")
app.command("rmqjobs.cli.plugins:app", name="plugins", help="Installed plugins: list, check.")
app.command("rmqjobs.cli.topology:app", name="topology", help="Exchanges, queues, bindings: show, apply, permissions.")
app.command("rmqjobs.cli.doctor:doctor", name="doctor", help="Look at the broker, and say what would go wrong.")


def main() -> None:
    """Runs the command of `sys.argv` and exits with its code."""
    arguments = sys.argv[1:]
    setproctitle(_title(arguments))
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    # What they say about a lost connection, our errors say in a sentence.
    for library in ("aio_pika", "aiormq", "pika", "rmqjobs.publishing"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    with errors.explained(debug=debug):
        _add_commands_of_plugins(arguments)
        code = app(arguments)
        sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _title(arguments: Sequence[str]) -> str:
    """The command for the process list, which everybody can read: its passwords are masked."""
    words = ["rmqjobs", *(_masked(each) if "://" in each or "@" in each else each for each in arguments)]
    return whole_characters(" ".join(words))


def _masked(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{mask_url(value)}"


def _add_commands_of_plugins(arguments: list[str]) -> None:
    """Adds the commands of plugins; they are looked for only when the first word is not one of ours."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in list(app):
        return
    from rmqjobs.cli.options import Common  # noqa: PLC0415 - not needed otherwise
    from rmqjobs.plugins import installed, load  # noqa: PLC0415

    allowed = Common().settings().allowed_plugins
    if installed(allowed):
        for name, command in (load(allowed=allowed).commands or {}).items():
            app.command(command, name=name)
