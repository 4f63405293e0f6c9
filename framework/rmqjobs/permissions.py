"""The least permissions that each role needs in RabbitMQ. Above `topology`: pure values, made from its names.

RabbitMQ requires *write* on an exchange to publish to it, *read* on a queue to consume from it, and *configure* on whatever is
declared. Publishing straight to a queue means publishing to `amq.default`. Declaring also binds, and names dead-letter
exchanges: it needs write and read on nearly everything, so only the operator should have to do it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rmqjobs.job import Handler
from rmqjobs.topology import LADDER_LEVELS, Names, build

_DEFAULT_EXCHANGE = "amq.default"
_ANY = "*"  # a name that ends in this word stands for many


@dataclass(frozen=True, slots=True)
class Role:
    """What one role may do.

    Args:
        name: `publisher`, `worker`, `scheduler` or `operator`.
        configure: Names it declares.
        write: Names it publishes to, or binds.
        read: Names it consumes from, or binds.
        prefix: Only for the operator, who may use every name under it, such as queues of plugins that are not installed here.
    """

    name: str
    configure: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def patterns(self) -> tuple[str, str, str]:
        """Regular expressions for `rabbitmqctl set_permissions`: configure, write, read."""
        if self.prefix:
            all_of_it = rf"{_escaped(self.prefix)}\..*"
            return f"^{all_of_it}$", f"^({all_of_it}|{_escaped(_DEFAULT_EXCHANGE)})$", f"^{all_of_it}$"
        return pattern(self.configure), pattern(self.write), pattern(self.read)

    def missing(self, configure: str, write: str, read: str) -> list[str]:
        """What the role needs and these expressions do not allow, such as `write on rmqjobs.jobs`."""
        given = (("configure", self.configure, configure), ("write", self.write, write), ("read", self.read, read))
        return [f"{verb} on {name}" for verb, names, allowed in given for name in names if not _allows(allowed, name)]


def roles(handlers: Iterable[Handler], prefix: str = "rmqjobs") -> tuple[Role, ...]:
    """The least permissions of every role, for these handlers."""
    names, handlers = Names(prefix), tuple(handlers)
    ladder = tuple(names.delay(level) for level in range(LADDER_LEVELS))
    queues = sorted({handler.queue for handler in handlers})
    entrances, claims = (names.jobs, *ladder), (names.claim(_ANY),)
    topology = build(handlers, prefix)
    declared = {each.name for each in topology.exchanges} | {each.name for each in topology.queues}
    everything = tuple(sorted(declared | {names.scheduler}))
    return (
        Role("publisher", write=(*entrances, names.events)),
        Role(
            "worker",
            configure=claims,
            write=(*entrances, names.dead, names.events, _DEFAULT_EXCHANGE, *claims),
            read=(*map(names.queue, queues), names.unrouted, names.control, *claims),
        ),
        Role(
            "scheduler",
            configure=claims,
            write=(*entrances, names.events, _DEFAULT_EXCHANGE),
            read=(names.scheduler,),
        ),
        Role("operator", configure=everything, write=(*everything, _DEFAULT_EXCHANGE), read=everything, prefix=prefix),
    )


def pattern(names: Iterable[str]) -> str:
    """One expression for these names and no others; the ladder's levels share an alternative, and claims may have any name."""
    found = dict.fromkeys(map(_expression, names))
    return f"^({'|'.join(found)})$" if found else "^$"


def _expression(name: str) -> str:
    if name.endswith(f".{_ANY}"):
        return _escaped(name.removesuffix(_ANY)) + ".*"
    return re.sub(r"(?<=delay\\\.)\d\d$", r"\\d\\d", _escaped(name))


def _allows(expression: str, name: str) -> bool:
    """Whether RabbitMQ would allow the name. An empty expression allows nothing, nor does one that Python cannot read."""
    try:
        return re.search(expression or "^$", name) is not None
    except re.error:
        return False


def _escaped(name: str) -> str:
    return re.escape(name).replace(r"\-", "-")
