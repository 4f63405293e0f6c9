"""How a broker's topology differs from what is wanted. Pure; the doctor judges it, and a plan lists it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmqjobs.doctor.facts import Facts
from rmqjobs.topology import Binding, Topology


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs; for bindings and arguments, only what the management API reports.

    Args:
        exchanges: Those that are missing.
        queues: Those that are missing.
        bindings: Those that are missing.
        obsolete: Bindings that should have gone.
        different: Queues that are there with other arguments, and what differs.
    """

    exchanges: tuple[str, ...]
    queues: tuple[str, ...]
    bindings: tuple[Binding, ...]
    obsolete: tuple[Binding, ...]
    different: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Queues and exchanges that are missing."""
        return self.queues + self.exchanges


def compare(facts: Facts, topology: Topology) -> Drift:
    """Compares the two; whatever this user may not look at counts as being there."""
    queues = [each.name for each in topology.queues if each.name not in facts.queues and each.name not in facts.unseen]
    api = facts.management
    bound = api.bindings if api else frozenset()
    different = {
        queue.name: wrong
        for queue in topology.queues
        if api and (there := api.queues.get(queue.name)) and (wrong := _differences(queue.arguments, there))
    }
    return Drift(
        exchanges=facts.missing_exchanges,
        queues=tuple(queues),
        bindings=tuple(each for each in _once(topology.bindings) if api and _key(each) not in bound),
        obsolete=tuple(each for each in _once(topology.obsolete) if _key(each) in bound),
        different=different,
    )


def _key(binding: Binding) -> tuple[str, str, str]:
    return binding.source, binding.destination, binding.key


def _once(bindings: Iterable[Binding]) -> Iterable[Binding]:
    return dict.fromkeys(bindings)


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """The differences, such as `x-overflow = drop-head instead of reject-publish`."""
    found = {"x-queue-type": there.get("type", "classic"), **(there.get("arguments") or {})}
    keys = [key for key in sorted(wanted.keys() | found.keys()) if wanted.get(key) != found.get(key)]
    return ", ".join(f"{key} = {found.get(key, 'none')} instead of {wanted.get(key, 'none')}" for key in keys)
