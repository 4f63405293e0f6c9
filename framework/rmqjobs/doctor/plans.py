"""What `rmqjobs topology apply` would change: one line per change, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from rmqjobs import policies
from rmqjobs.doctor.drift import compare
from rmqjobs.doctor.facts import Facts, gather
from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import Settings
from rmqjobs.topology import Names, Topology, job_type_of_key


class Verb(StrEnum):
    """What happens to a thing."""

    DECLARE = "declare"
    BIND = "bind"
    UNBIND = "unbind"
    SET = "set"
    HIDE = "hide"
    STAYS = "stays"  # whatever we do
    BLOCKED = "blocked"  # it is in the way: `apply` fails


@dataclass(frozen=True, slots=True)
class Change:
    """One line.

    Args:
        change: What happens.
        kind: exchange, queue, binding, policy or operator policy.
        name: Name of the thing.
        details: More about it.
    """

    change: Verb
    kind: str
    name: str
    details: str = ""


async def make(settings: Settings, topology: Topology, *, shield: bool) -> list[Change]:
    """Looks at the broker, and changes nothing.

    Args:
        settings: The broker, and the prefix.
        topology: What is wanted.
        shield: Whether to plan a shield against other policies too.

    Raises:
        BrokerError: The broker is not there, or refuses us.
        ConfigurationError: Policies cannot be seen.
    """
    facts = await gather(settings, topology)
    changes = list(_topology_changes(facts, topology))
    if shield:
        changes += _shield_changes(facts, settings)
    return changes


def _topology_changes(facts: Facts, topology: Topology) -> Iterator[Change]:
    drift = compare(facts, topology)
    kinds = {exchange.name: exchange.kind for exchange in topology.exchanges}
    for name in drift.exchanges:
        yield Change(Verb.DECLARE, "exchange", name, kinds.get(name, ""))
    arguments = {queue.name: queue.arguments for queue in topology.queues}
    for name in drift.queues:
        details = " ".join(f"{key}={value}" for key, value in arguments[name].items())
        yield Change(Verb.DECLARE, "queue", name, details)
    essential = {queue.name for queue in topology.queues if queue.essential}
    for name, wrong in drift.different.items():
        yield Change(Verb.BLOCKED if name in essential else Verb.STAYS, "queue", name, f"{wrong}: drain and delete it")
    for binding in drift.bindings:
        yield Change(Verb.BIND, "binding", binding.destination, f"{job_type_of_key(binding.key)} from {binding.source}")
    for binding in drift.obsolete:
        yield Change(Verb.UNBIND, "binding", binding.destination, f"{job_type_of_key(binding.key)} from {binding.source}")


def _shield_changes(facts: Facts, settings: Settings) -> Iterator[Change]:
    """The shield itself, the policies behind it, and those that no shield hides."""
    api, vhost = facts.management, settings.broker.vhost
    if api is None:
        problem = facts.management_problem
        raise ConfigurationError("management_url", f"policies cannot be seen: {problem}", "Set it to plan a shield")
    shielding, names = policies.shield(settings.prefix, api.policies), Names(settings.prefix)
    if not any(each["name"] == shielding.name and each.items() >= shielding.policy.items() for each in api.policies):
        details = f"pattern {shielding.pattern}, priority {shielding.priority:,}"
        yield Change(Verb.SET, "policy", shielding.name, details)
    definitions = {str(each["name"]): each["definition"] for each in api.policies}
    for name, roles in policies.hidden(api.queues, names).items():
        sets = ", ".join(f"{key} = {value}" for key, value in definitions.get(name, {}).items())
        yield Change(Verb.HIDE, "policy", name, f"{sets} on {policies.places(roles)}")
    for harm in policies.judge(api.queues, names, api.operator_policies):
        if harm.by_operator:
            details = f"{harm.evidence}; end it with: {harm.mend(vhost)}"
            yield Change(Verb.STAYS, "operator policy", harm.policy, details)
