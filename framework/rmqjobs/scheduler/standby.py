"""Standing by: only the single active consumer gets messages, so the first one that arrives says that the token is coming."""

from __future__ import annotations

import uuid

from rmqjobs.amqp.holding import Holding
from rmqjobs.errors import NewerToken
from rmqjobs.scheduler.active import merge
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire
from rmqjobs.wire.scheduling import FORMAT, Barrier, Command, Content, Hello, Report, Token


class Takeover:
    """Gathers what the last one held until all of it has arrived: there may be two tokens, and the higher one wins.

    Args:
        holding: The connection that has become the active consumer, or will.
        names: Of queues.
    """

    def __init__(self, holding: Holding, names: Names) -> None:
        self._holding, self._names = holding, names
        self._barrier = ""
        self._tokens: list[Token] = []
        self._reports: dict[str, tuple[Report, int]] = {}
        self._commands: list[tuple[Command, int]] = []
        self.tags: list[int] = []

    async def begin(self) -> None:
        """Sends, once, a message that comes back when everything before it has."""
        if not self._barrier:
            self._barrier = uuid.uuid4().hex
            await self._holding.publish([wire.barrier(self._names, self._barrier)])

    def take(self, content: Content, tag: int) -> bool:
        """Whether this was the last of what had been there."""
        match content:
            case Token():
                self._tokens.append(content)
                self.tags.append(tag)
            case Barrier(nonce):
                self._holding.ack([tag])
                return nonce == self._barrier
            case Report():
                self._take_report(content, tag)
            case Command():
                self._commands.append((content, tag))
            case Hello():
                self._holding.ack([tag])
        return False

    def others(self) -> list[tuple[Report | Command, int]]:
        """What arrived besides tokens, in order."""
        return sorted([*self._reports.values(), *self._commands], key=lambda content: content[1])

    def _take_report(self, report: Report, tag: int) -> None:
        """Of a schedule the last end counts: after a long time without a scheduler there may be more than can be held."""
        former = self._reports.get(report.schedule)
        if former is not None and report.status == "started":
            self._holding.ack([tag])
            return
        if former is not None:
            self._holding.ack([former[1]])
        self._reports[report.schedule] = (report, tag)

    def token(self, known: Token) -> Token:
        """The state to go on with: the highest version there is, and what others ticked beyond it.

        Args:
            known: What this scheduler knew; counts when the queue had none, as after a purge.

        Raises:
            NewerToken: It is beyond this version.
        """
        latest = max((token.format for token in self._tokens), default=FORMAT)
        if latest > FORMAT:
            raise NewerToken(f"the token has format {latest}, and this version knows {FORMAT}. Update this scheduler")
        newest = max(self._tokens, key=lambda token: token.version, default=known)
        for token in self._tokens:
            if token is not newest and token.version:
                merge(newest, token)
        return newest
