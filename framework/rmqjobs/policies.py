"""What an operator's policies do to our queues. Above `topology`: pure, from what the management API reports.

A policy can change a queue behind our back: it can make the queue drop jobs that were confirmed, refuse jobs, or delete itself.
Tried on RabbitMQ 3.10 and 4.3: for `overflow`, the policy counts and not the queue's own argument; for limits and times, the
lower value counts; for where dead letters go, the argument. Only the policy with the highest priority counts for a queue, and
an operator policy beside it.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from rmqjobs.topology import LADDER_LEVELS, NO_DELIVERY_LIMIT, Names

QueueFacts = Mapping[str, Any]  # as `amqp.management` has them: policy, operator_policy, effective_policy_definition, arguments
# A policy has to set something, and RabbitMQ ignores a policy with a key that the queue's type does not know. Of two delivery
# limits the lower one counts: the queue's own.
_CHANGES_NOTHING: Mapping[str, Any] = {"delivery-limit": NO_DELIVERY_LIMIT}
_SHIELD_PRIORITY = 1_000


class Effect(StrEnum):
    """What a policy does, the worst first."""

    LOSES = "loses"  # confirmed jobs, dead letters or the scheduler's state are gone
    BURIES = "buries"  # jobs become dead letters without having run
    HURRIES = "hurries"  # delayed jobs come early
    REFUSES = "refuses"  # publishers, or workers with a dead letter, see the refusal and try again

    @property
    def words(self) -> str:
        """The effect in words."""
        return _WORDS[self]


_WORDS = {
    Effect.LOSES: "loses confirmed jobs",
    Effect.BURIES: "turns jobs that never ran into dead letters",
    Effect.HURRIES: "releases delayed jobs early",
    Effect.REFUSES: "makes queues refuse jobs",
}


class Role(StrEnum):
    """What a queue is for."""

    WORK = "work queues"
    LADDER = "levels of the delay ladder"
    DEAD = "dead-letter queues"
    UNROUTED = "unrouted jobs"
    DROPPED = "dropped dead letters"
    SCHEDULER = "the scheduler's state"
    JOURNAL = "the journal"
    CONTROL = "the control stream"


@dataclass(slots=True)
class Harm:
    """What one policy does to our queues.

    Args:
        policy: Its name.
        by_operator: Whether it is an operator policy, which no other policy can override.
        effects: For each effect: what causes it, and how many queues of which kind are affected.
    """

    policy: str
    by_operator: bool
    effects: dict[Effect, dict[str, dict[Role, int]]] = field(default_factory=dict)

    @property
    def worst(self) -> Effect:
        """Its worst effect."""
        return min(self.effects, key=list(Effect).index)

    @property
    def loses(self) -> bool:
        """Whether it makes messages vanish."""
        return Effect.LOSES in self.effects

    def mend(self, vhost: str, shielding: str = "rmqjobs topology apply --shield") -> str:
        """The command that ends the harm. A shield does not help against an operator policy."""
        clearing = ["rabbitmqctl", "clear_operator_policy", "-p", vhost, self.policy]
        return shlex.join(clearing) if self.by_operator else shielding

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        kind = "operator policy" if self.by_operator else "policy"
        return f"{kind} {self.policy!r} {_listed(effect.words for effect in Effect if effect in self.effects)}"

    @property
    def evidence(self) -> str:
        """The causes and the places: `max-length = 20 on 4 work queues and 4 dead-letter queues`."""
        causes: dict[str, dict[Role, int]] = {}
        for found in self.effects.values():
            for cause, roles in found.items():
                causes.setdefault(cause, {}).update(roles)
        return "; ".join(f"{cause} on {places(roles)}" for cause, roles in causes.items())

    def add(self, effect: Effect, cause: str, role: Role) -> None:
        """Counts one more queue."""
        roles = self.effects.setdefault(effect, {}).setdefault(cause, {})
        roles[role] = roles.get(role, 0) + 1


def judge(queues: Mapping[str, QueueFacts], names: Names, operator_policies: Iterable[Mapping[str, Any]] = ()) -> list[Harm]:
    """The harm that policies do to our queues, one entry per harmful policy, the worst first.

    Args:
        queues: Facts by queue name; queues that are not ours are left out.
        names: Our names.
        operator_policies: All that exist, to tell which policy does the harm.
    """
    by_operators = {str(each["name"]): each["definition"] for each in operator_policies}
    harms: dict[tuple[str, bool], Harm] = {}
    for name, facts in sorted(queues.items()):
        role = role_of(name, facts, names)
        definition = facts.get("effective_policy_definition") or {}
        if role is None or not definition:
            continue
        for effect, key, cause in _effects(role, definition, facts.get("arguments") or {}):
            policy, by_operator = _culprit(key, facts, by_operators)
            harms.setdefault((policy, by_operator), Harm(policy, by_operator)).add(effect, cause, role)
    return sorted(harms.values(), key=lambda harm: list(Effect).index(harm.worst))


def role_of(name: str, facts: QueueFacts, names: Names) -> Role | None:
    """What a queue is for; None when it is not one of ours."""
    if name in (fixed := _fixed(names)):
        return fixed[name]
    if not name.startswith(f"{names.prefix}."):
        return None
    if (facts.get("arguments") or {}).get("x-dead-letter-exchange") == names.dead:
        return Role.WORK
    return Role.DEAD if name.endswith(".dead") else None


@cache
def _fixed(names: Names) -> dict[str, Role]:
    """Queues that every prefix has."""
    return {
        names.unrouted: Role.UNROUTED,
        names.dropped: Role.DROPPED,
        names.scheduler: Role.SCHEDULER,
        names.journal: Role.JOURNAL,
        names.control: Role.CONTROL,
        **{names.delay(level): Role.LADDER for level in range(LADDER_LEVELS)},
    }


@dataclass(frozen=True, slots=True)
class Shield:
    """A policy that changes nothing. It outranks those that would: only the highest priority counts for a queue.

    Args:
        name: Name of the policy.
        pattern: Matches the queues: all of a prefix.
        priority: Higher than all others.
    """

    name: str
    pattern: str
    priority: int

    @property
    def policy(self) -> dict[str, Any]:
        """The policy as the management API takes it."""
        return {
            "pattern": self.pattern,
            "definition": dict(_CHANGES_NOTHING),
            "priority": self.priority,
            "apply-to": "queues",
        }

    def command(self, vhost: str) -> str:
        """The `rabbitmqctl` command that sets it."""
        options = ["-p", vhost, "--priority", str(self.priority), "--apply-to", "queues"]
        return shlex.join(["rabbitmqctl", "set_policy", *options, self.name, self.pattern, json.dumps(_CHANGES_NOTHING)])


def shield(prefix: str, others: Iterable[Mapping[str, Any]] = ()) -> Shield:
    """The shield of a prefix, with a higher priority than these other policies."""
    name = f"{prefix}-shield"
    highest = max((int(each.get("priority") or 0) for each in others if each.get("name") != name), default=0)
    return Shield(name, rf"^{re.escape(prefix)}\.", max(_SHIELD_PRIORITY, highest + 1))


def hidden(queues: Mapping[str, QueueFacts], names: Names) -> dict[str, dict[Role, int]]:
    """The policies that apply to our queues now and that a shield would hide, each with how many queues of which kind."""
    found: dict[str, dict[Role, int]] = {}
    for name, facts in sorted(queues.items()):
        role, policy = role_of(name, facts, names), facts.get("policy")
        if role is not None and policy and policy != shield(names.prefix).name:
            roles = found.setdefault(str(policy), {})
            roles[role] = roles.get(role, 0) + 1
    return found


def _effects(role: Role, policy: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[Effect, str, str]]:
    """What a policy does to a queue of that kind with these arguments: each effect, its key, and its cause in words."""
    if role is Role.JOURNAL:  # a shorter history costs no job
        return
    when_removed = _GOES_ON.get(role, Effect.LOSES)
    if "expires" in policy:
        yield Effect.LOSES, "expires", f"expires = {policy['expires']}"
    if policy.get("message-ttl", math.inf) < own.get("x-message-ttl", math.inf):
        yield when_removed, "message-ttl", f"message-ttl = {policy['message-ttl']}"
    yield from _limits(role, policy, when_removed)
    if 0 <= policy.get("delivery-limit", -1) < min(own.get("x-delivery-limit", 0), _SAFE_DELIVERY_LIMIT):
        yield when_removed, "delivery-limit", f"delivery-limit = {policy['delivery-limit']}"


def _limits(role: Role, policy: Mapping[str, Any], when_dropped: Effect) -> Iterator[tuple[Effect, str, str]]:
    """Length limits, and what happens at them. Only work queues and the ladder have arguments that make them refuse."""
    own = "reject-publish" if role in (Role.WORK, Role.LADDER) else "drop-head"
    overflow = policy.get("overflow", own)
    lengths = [key for key in ("max-length", "max-length-bytes") if key in policy]
    for key in lengths:
        what = f"{key} = {policy[key]}" + (f" with overflow = {overflow}" if "overflow" in policy else "")
        yield (when_dropped if overflow == "drop-head" else Effect.REFUSES), key, what
    if not lengths and overflow != own and own == "reject-publish":
        # RabbitMQ makes sure that a dead letter arrives only for queues that refuse what they have no room for.
        yield Effect.LOSES, "overflow", f"overflow = {overflow}"


_GOES_ON = {Role.WORK: Effect.BURIES, Role.LADDER: Effect.HURRIES}  # messages removed from these arrive elsewhere
_SAFE_DELIVERY_LIMIT = 1_000_000  # looking at dead letters counts as a delivery


def _culprit(key: str, facts: QueueFacts, operator_policies: Mapping[str, Mapping[str, Any]]) -> tuple[str, bool]:
    """Which policy a value comes from: the operator policy if that sets it, or if there is no other."""
    policy, operator = facts.get("policy"), facts.get("operator_policy")
    sets = operator_policies.get(operator or "", {})
    if operator and (policy is None or sets.get(key) == (facts.get("effective_policy_definition") or {}).get(key)):
        return str(operator), True
    return str(policy), False


def places(roles: Mapping[Role, int]) -> str:
    """Numbers of queues by kind, in words: `4 work queues and the journal`."""
    return _listed(role.value if role in _SINGLE else f"{roles[role]} {role.value}" for role in Role if role in roles)


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


_SINGLE = (Role.UNROUTED, Role.DROPPED, Role.SCHEDULER, Role.JOURNAL, Role.CONTROL)
