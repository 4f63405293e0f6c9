"""Dead letters by their cause: equal failures have the same fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rmqjobs.deadletters.review import Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.wire.deadletters import DeadLetter

MOST_MEMBERS = 50  # named for each group
NO_FINGERPRINT = "-"


@dataclass(slots=True)
class Group:
    """Dead letters with the same cause.

    Args:
        key: Their fingerprint; those that have none are grouped by reason and type.
        fingerprint: The same, empty for those that have none.
        reason: Why the first one was given up.
        error_type: The error's class.
        error_message: The latest one's message.
        traceback: The latest one's.
        count: How many there are.
        first: When the first one was given up.
        last: When the last one was.
        types: Their job types.
        queues: Their work queues.
        reasons: Why they were given up.
        versions: Versions of the plugin that they failed in.
        members: The first of them.
    """

    key: str
    fingerprint: str
    reason: str
    error_type: str
    error_message: str = ""
    traceback: str = ""
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    types: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    members: list[DeadLetter] = field(default_factory=list)

    def add(self, letter: DeadLetter) -> None:
        """Counts one more."""
        self.count += 1
        self.types.add(letter.type)
        self.queues.add(letter.queue)
        self.reasons.add(letter.reason)
        if letter.plugin_version:
            self.versions.add(letter.plugin_version)
        if len(self.members) < MOST_MEMBERS:
            self.members.append(letter)
        at = letter.failed_at
        if at is not None and (self.first is None or at < self.first):
            self.first = at
        if self.last is None or (at is not None and at >= self.last):
            self.last = at or self.last
            self.error_message, self.traceback = letter.error_message, letter.traceback

    @property
    def selection(self) -> Selection:
        """What a review has to look for, to act on all of them."""
        if self.fingerprint:
            return Selection(fingerprint=self.fingerprint)
        return Selection(types=tuple(self.types), reason=self.reason)


async def groups_of(review: Review, queues: Sequence[str]) -> list[Group]:
    """The groups of these work queues' dead letters, the largest first. In bounded memory: few of each are kept.

    Raises:
        ReviewInProgress: Somebody else is looking at one of them.
        BrokerError: The connection is lost.
    """
    found: dict[str, Group] = {}
    for queue in queues:
        async for letter in review.letters(queue, Selection()):
            key = letter.fingerprint or f"{NO_FINGERPRINT}{letter.reason}{NO_FINGERPRINT}{letter.type}"
            if key not in found:
                found[key] = Group(key, letter.fingerprint, letter.reason, letter.error_type)
            found[key].add(letter)
    return sorted(found.values(), key=lambda group: group.count, reverse=True)
