"""`rmqjobs topology show | plan | apply | permissions`."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import asdict

import cyclopts

from rmqjobs import policies
from rmqjobs.amqp import management
from rmqjobs.amqp.connection import Connection, connect, connection_name
from rmqjobs.amqp.declaring import declare
from rmqjobs.cli.errors import INVALID, say
from rmqjobs.cli.options import Common, Flag, Words
from rmqjobs.cli.output import print_json, print_table
from rmqjobs.doctor import plans
from rmqjobs.errors import ConfigurationError
from rmqjobs.permissions import Role, roles
from rmqjobs.plugins import load
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, Topology, build, scheduling

app = cyclopts.App(name="topology", help="Exchanges, queues and bindings.")


@app.command
def show(*, plugin: Words = None, shield: Flag = False, json: Flag = False, common: Common | None = None) -> None:
    """Print what the plugins need in RabbitMQ; needs no broker.

    Parameters
    ----------
    plugin
        A plugin to include; all installed ones when none is named.
    shield
        Print the policy that keeps other policies away from these queues, as a command for `rabbitmqctl`.
    json
        Print JSON.
    """
    settings = (common or Common()).settings(plugins=plugin or None)
    topology, shielding = _topology(settings), policies.shield(settings.prefix)
    if json:
        print_json(asdict(topology) | ({"shield": asdict(shielding)} if shield else {}))
        return
    if shield:
        print(shielding.command(settings.broker.vhost))  # noqa: T201 - a line to paste, whole
        say("give it a higher priority than any other policy has; rmqjobs topology apply --shield does that by itself")
        return
    print_table(
        ("exchange", "kind", "arguments"), ({"exchange": e.name, **_with(e.kind, e.arguments)} for e in topology.exchanges)
    )
    print_table(("queue", "arguments"), ({"queue": queue.name, **_with("", queue.arguments)} for queue in topology.queues))
    print_table(
        ("from", "key", "to"), ({"from": each.source, "key": each.key, "to": each.destination} for each in topology.bindings)
    )


@app.command
def permissions(
    role: str | None = None,
    /,
    *,
    user: str | None = None,
    plugin: Words = None,
    json: Flag = False,
    common: Common | None = None,
) -> None:
    """Print the least permissions that each role needs, as commands for `rabbitmqctl`; needs no broker.

    All roles but the operator run with the setting `declare = false`: the operator declares, with `rmqjobs topology apply`.

    Parameters
    ----------
    role
        publisher, worker, scheduler or operator; all when none is named.
    user
        Name of the RabbitMQ user; `rmqjobs-` and the role when none is given.
    plugin
        A plugin whose queues to allow; all installed ones when none is named.
    json
        Print JSON.
    """
    settings = (common or Common()).settings(plugins=plugin or None)
    known = {
        each.name: each
        for each in roles(load(settings.plugins, allowed=settings.allowed_plugins).handlers.values(), settings.prefix)
    }
    if role is not None and role not in known:
        raise ConfigurationError("ROLE", f"{role!r} is not a role", f"Roles are: {', '.join(known)}")
    if user is not None and role is None:
        raise ConfigurationError("--user", "it is the name of one role's user", f"Name the role, too: {', '.join(known)}")
    wanted = [each for each in known.values() if role in (None, each.name)]
    if json:
        print_json([asdict(each) | dict(zip(_VERBS, each.patterns, strict=True)) for each in wanted])
        return
    for each in wanted:
        print(_command(each, user or f"rmqjobs-{each.name}", settings.broker.vhost))  # noqa: T201 - a line to paste, whole
    say("the users must exist: create them with rabbitmqctl add_user NAME, which asks for a password")
    say("all roles but the operator run with declare = false, once the operator has run: rmqjobs topology apply")


_VERBS = ("configure", "write", "read")


def _command(role: Role, user: str, vhost: str) -> str:
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", vhost, user, *role.patterns])


@app.command
def plan(*, plugin: Words = None, shield: Flag = False, json: Flag = False, common: Common | None = None) -> int:
    """Print what `apply` would change, and change nothing. Exits with 7 when something is in its way.

    Parameters
    ----------
    plugin
        A plugin to include; all installed ones when none is named.
    shield
        Include the policy that keeps other policies away from these queues, and what it would hide.
    json
        Print JSON.
    """
    settings = (common or Common()).settings(plugins=plugin or None)
    changes = asyncio.run(plans.make(settings, _topology(settings), shield=shield))
    if json:
        print_json([asdict(change) for change in changes])
    elif changes:
        print_table(("change", "kind", "name", "details"), map(asdict, changes))
    else:
        say(f"nothing to change on {settings.broker}")
    return INVALID if any(change.change is plans.Verb.BLOCKED for change in changes) else 0


@app.command
def apply(*, plugin: Words = None, shield: Flag = False, common: Common | None = None) -> None:
    """Declare what the plugins need; what exists already stays as it is.

    Parameters
    ----------
    plugin
        A plugin to include; all installed ones when none is named.
    shield
        Also set a policy that keeps other policies away from these queues: one that matches everything can make a queue drop
        jobs. Needs the management API. Operator policies cannot be kept away.
    """
    settings = (common or Common()).settings(plugins=plugin or None)
    topology = _topology(settings)
    shielding = asyncio.run(_apply(settings, topology, shield=shield))
    say(
        f"declared {len(topology.exchanges)} exchanges, {len(topology.queues)} queues and {len(topology.bindings)} bindings"
        f" on {settings.broker}"
    )
    if shielding is not None:
        say(f"set policy {shielding.name!r} for {shielding.pattern} with priority {shielding.priority:,}")


async def _apply(settings: Settings, topology: Topology, *, shield: bool) -> policies.Shield | None:
    connection = await connect(settings.broker, name=connection_name("topology"), heartbeat=settings.heartbeat)
    try:
        await declare(connection, topology)
        return await _raise_shield(settings, connection) if shield else None
    finally:
        await connection.close()


async def _raise_shield(settings: Settings, connection: Connection) -> policies.Shield:
    vhost, api = settings.broker.vhost, await management.find(settings, connection)
    if api is None:
        hint = f"Set it, or as the broker's administrator run: {policies.shield(settings.prefix).command(vhost)}"
        raise ConfigurationError("management_url", "it is not set, and AMQP cannot set policies", hint)
    shielding = policies.shield(settings.prefix, await api.policies(vhost))
    await api.set_policy(vhost, shielding.name, shielding.policy)
    for harm in policies.judge(await api.queues(vhost), Names(settings.prefix), await api.operator_policies(vhost)):
        if harm.by_operator:
            say(f"note: {harm.summary} ({harm.evidence}). A shield does not help; end it with: {harm.mend(vhost)}")
    return shielding


def _topology(settings: Settings) -> Topology:
    return build(load(settings.plugins, allowed=settings.allowed_plugins).handlers.values(), settings.prefix) + scheduling(
        settings.prefix
    )


def _with(kind: str, arguments: object) -> dict[str, object]:
    return {"kind": kind, "arguments": " ".join(f"{name}={value}" for name, value in dict(arguments).items())}  # type: ignore[call-overload]
