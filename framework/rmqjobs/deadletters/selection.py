"""Which dead letters an operator means. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rmqjobs.wire.deadletters import DeadLetter


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter; parts that are empty match everything.

    Args:
        queues: Work queues.
        ids: Job ids, or beginnings of them.
        types: Job types.
        error: Part of the error's class or message.
        reason: The reason, as listed.
        fingerprint: Fingerprint of equal failures, or its beginning.
        older_than: Died at least this long ago.
        newer_than: Died at most this long ago.
        whole: Whether `ids` are whole ones.
    """

    queues: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    error: str = ""
    reason: str = ""
    fingerprint: str = ""
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    whole: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it matches every dead letter."""
        return self == Selection()

    def matches(self, letter: DeadLetter, now: datetime) -> bool:
        """Whether the filter matches the dead letter."""
        error = f"{letter.error_type}: {letter.error_message}".lower()
        return (
            (not self.queues or letter.queue in self.queues)
            and (not self.ids or self._names(letter.id))
            and (not self.types or letter.type in self.types)
            and self.error.lower() in error
            and (not self.reason or self.reason.lower() == letter.reason.lower())
            and letter.fingerprint.startswith(self.fingerprint)
            and self._of_age(letter, now)
        )

    def ambiguous(self, found: Iterable[DeadLetter]) -> list[str]:
        """Beginnings of ids that fit several of these dead letters, and none of them exactly."""
        ids = {letter.id for letter in found}
        return [wanted for wanted in self.ids if wanted not in ids and sum(each.startswith(wanted) for each in ids) > 1]

    def of(self, found: Iterable[DeadLetter]) -> Selection:
        """The same with the whole ids of what was found: an id that begins another one means itself."""
        ids = {letter.id for letter in found}
        meant = {each for wanted in self.ids for each in ([wanted] if wanted in ids else ids) if each.startswith(wanted)}
        return replace(self, ids=tuple(sorted(meant)), whole=True) if self.ids else self

    def describe(self) -> str:
        """The filter in words."""
        parts = [
            f"queue {' or '.join(self.queues)}" if self.queues else "",
            f"id {' or '.join(self.ids)}" if self.ids else "",
            f"type {' or '.join(self.types)}" if self.types else "",
            f"error containing {self.error!r}" if self.error else "",
            f"reason {self.reason!r}" if self.reason else "",
            f"fingerprint {self.fingerprint}" if self.fingerprint else "",
            f"older than {self.older_than}" if self.older_than is not None else "",
            f"newer than {self.newer_than}" if self.newer_than is not None else "",
        ]
        return ", ".join(filter(None, parts)) or "all of them"

    def _names(self, job_id: str) -> bool:
        return job_id in self.ids if self.whole else any(job_id.startswith(wanted) for wanted in self.ids)

    def _of_age(self, letter: DeadLetter, now: datetime) -> bool:
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.failed_at is None:  # an unknown age is neither old nor new
            return False
        age = now - letter.failed_at
        return (self.older_than is None or age >= self.older_than) and (self.newer_than is None or age <= self.newer_than)
