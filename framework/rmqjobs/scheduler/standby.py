"""Standing by: only the single active consumer gets messages, so the first message to arrive means that the token is coming."""

from __future__ import annotations

import uuid

from rmqjobs.amqp.holding import Holding
from rmqjobs.errors import BrokerUnavailable, NewerToken
from rmqjobs.scheduler.active import take_cursors
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire
from rmqjobs.wire.scheduling import FORMAT, Barrier, Command, Content, Hello, Report, Token, Unreadable

MOST_REPORTS = 10_000
PASSED_OVER = 3  # looks in a row


class Turn:
    """Watches that it can still be this scheduler's turn: RabbitMQ may have consumers that wait, and make none of them active.

    Args:
        holding: The connection that stands by.
        names: Names of queues.
    """

    def __init__(self, holding: Holding, names: Names) -> None:
        self._holding, self._queue = holding, names.scheduler
        self._passed_over = 0

    async def check(self) -> None:
        """Looks once.

        Raises:
            BrokerUnavailable: It was passed over several times in a row, and should connect again.
        """
        self._passed_over = self._passed_over + 1 if await self._holding.is_passed_over(self._queue) else 0
        if self._passed_over == PASSED_OVER:
            raise BrokerUnavailable("RabbitMQ makes nobody the active consumer, although this scheduler waits for it")


class Takeover:
    """Gathers what the last active scheduler held, until all has arrived. Of two tokens, the higher version wins.

    Args:
        holding: The connection that has become the active consumer, or will.
        names: Names of queues.
    """

    def __init__(self, holding: Holding, names: Names) -> None:
        self._holding, self._names = holding, names
        self._barrier = ""
        self._tokens: list[Token] = []
        self._token_tags: list[int] = []
        self._unreadable: Unreadable | None = None
        self._reports: dict[str, tuple[Report, int]] = {}
        self._earlier: list[tuple[Report, int]] = []
        self._passed = 0
        self._commands: list[tuple[Command, int]] = []
        self.tags: list[int] = []

    async def begin(self) -> None:
        """Sends, once, a message that comes back when everything before it has arrived."""
        if not self._barrier:
            self._barrier = uuid.uuid4().hex
            await self._holding.publish([wire.barrier(self._names, self._barrier)])

    def take(self, content: Content, tag: int) -> bool:
        """Takes one message; returns whether it was the last of those that had been there."""
        match content:
            case Token():
                self._tokens.append(content)
                self._token_tags.append(tag)
                self.tags.append(tag)
            case Unreadable():
                self._unreadable = content
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

    @property
    def knows_nothing(self) -> bool:
        """Whether there were only offers of schedulers that have just started."""
        return not any(token.version for token in self._tokens)

    def others(self) -> list[tuple[Report | Command, int]]:
        """What arrived besides tokens, in order."""
        return sorted([*self._earlier, *self._reports.values(), *self._commands], key=lambda content: content[1])

    def _take_report(self, report: Report, tag: int) -> None:
        """Keeps a report. After a long time without a scheduler there may be too many: then the last of a schedule counts."""
        former = self._reports.get(report.schedule)
        if former is not None and self._passed < MOST_REPORTS:
            self._earlier.append(former)
        elif former is not None:
            self._holding.ack([former[1]])
        self._passed += 1
        self._reports[report.schedule] = (report, tag)

    def token(self, known: Token) -> Token:
        """The state to go on with: the highest version there is.

        Args:
            known: What this scheduler knew; counts when the queue had none, as after a purge.

        Raises:
            NewerToken: The state is there, but this version cannot read it.
        """
        latest = max((token.format for token in self._tokens), default=FORMAT)
        if latest > FORMAT:
            self._give_up(f"the token has format {latest}, and this version knows {FORMAT}")
        newest = max((known, *self._tokens), key=lambda token: token.version)
        if self._unreadable is not None and not newest.version:
            self._give_up(self._unreadable.because)
        for token in self._tokens:
            take_cursors(newest, token)
        return newest

    def _give_up(self, because: str) -> None:
        offers = [
            tag
            for token, tag in zip(self._tokens, self._token_tags, strict=True)
            if token.format <= FORMAT and not token.version
        ]
        self._holding.ack(offers)  # each connection offers one: they must not pile up
        raise NewerToken(f"{because}. Update this scheduler, or purge the queue to start afresh")
