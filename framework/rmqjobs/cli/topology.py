"""`rmqjobs topology show | apply`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from rmqjobs.amqp.connection import connect, connection_name
from rmqjobs.amqp.declaring import declare
from rmqjobs.cli.options import Common
from rmqjobs.cli.output import print_json, print_table, say
from rmqjobs.plugins import load
from rmqjobs.settings import Settings
from rmqjobs.topology import Topology, build

app = cyclopts.App(name="topology", help="Exchanges, queues and bindings.")
Plugins = Annotated[list[str] | None, Parameter(negative="")]


@app.command
def show(*, plugin: Plugins = None, json: bool = False, common: Common | None = None) -> None:
    """Print what the plugins need in RabbitMQ; asks no broker.

    Parameters
    ----------
    plugin
        A plugin to include; all installed ones when none is named.
    json
        Print JSON.
    """
    topology = _topology((common or Common()).settings(plugins=plugin or None))
    if json:
        print_json(asdict(topology))
        return
    print_table(
        ("exchange", "kind", "arguments"), ({"exchange": e.name, **_with(e.kind, e.arguments)} for e in topology.exchanges)
    )
    print_table(("queue", "arguments"), ({"queue": queue.name, **_with("", queue.arguments)} for queue in topology.queues))
    print_table(
        ("from", "key", "to"), ({"from": each.source, "key": each.key, "to": each.destination} for each in topology.bindings)
    )


@app.command
def apply(*, plugin: Plugins = None, common: Common | None = None) -> None:
    """Declare it; what is there already stays as it is.

    Parameters
    ----------
    plugin
        A plugin to include; all installed ones when none is named.
    """
    settings = (common or Common()).settings(plugins=plugin or None)
    topology = _topology(settings)
    asyncio.run(_apply(settings, topology))
    say(
        f"declared {len(topology.exchanges)} exchanges, {len(topology.queues)} queues and {len(topology.bindings)} bindings"
        f" on {settings.broker}"
    )


async def _apply(settings: Settings, topology: Topology) -> None:
    connection = await connect(settings.broker, name=connection_name("topology"), heartbeat=settings.heartbeat)
    try:
        await declare(connection, topology)
    finally:
        await connection.close()


def _topology(settings: Settings) -> Topology:
    return build(load(settings.plugins).handlers.values(), settings.prefix)


def _with(kind: str, arguments: object) -> dict[str, object]:
    return {"kind": kind, "arguments": " ".join(f"{name}={value}" for name, value in dict(arguments).items())}  # type: ignore[call-overload]
