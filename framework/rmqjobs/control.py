"""What operators have said: which queues are paused, which jobs are cancelled, and what a worker is asked to do. Pure.

Pauses and cancels are lasting: a worker that starts tomorrow reads what was said today. All else is for workers that run now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

WHOLE = "$"  # ends a worker's whole name, where not just the beginning of one is meant
CANCEL_KEPT = timedelta(days=30)  # how long a cancelled job may still come, unless something else is said


class Verb(StrEnum):
    """What can be said; `PAUSE` and `RESUME` are about a queue, `CANCEL` about a job, all others about a worker."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    PING = "ping"
    STACKS = "stacks"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    STOP = "stop"


LASTING = frozenset({Verb.PAUSE, Verb.RESUME, Verb.CANCEL})  # these count for workers that start later, too


class Word(NamedTuple):
    """One thing that an operator said.

    Args:
        verb: What.
        subject: The queue without the prefix, the job's id, or the beginning of a worker's name; of a whole one with `WHOLE`.
        at: When it was said, aware.
        by: Who said it.
        because: Why.
        until: When it ends by itself: a pause is over, a cancel is forgotten, a question is no longer answered.
        place: Its offset in the stream, -1 before it is there; of two words about a queue, the later one counts.
    """

    verb: Verb
    subject: str
    at: datetime
    by: str = ""
    because: str = ""
    until: datetime | None = None
    place: int = -1

    def is_over(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.until is not None and self.until <= now

    def __str__(self) -> str:
        return (f"by {self.by}" if self.by else "by an operator") + (f", because: {self.because}" if self.because else "")


class Standing:
    """What counts, of all that was said. Words may come in any order, and more than once."""

    def __init__(self) -> None:
        self._queues: dict[str, Word] = {}
        self.cancels: dict[str, Word] = {}

    def take(self, word: Word) -> None:
        """Takes one lasting word."""
        if word.verb is Verb.CANCEL:
            known = self.cancels.get(word.subject)
            if known is None or known.at < word.at:
                self.cancels[word.subject] = word
        else:
            known = self._queues.get(word.subject)
            if known is None or known.place <= word.place:
                self._queues[word.subject] = word

    def pause_of(self, queue: str, now: datetime) -> Word | None:
        """The word by which a queue is paused now; None when it is not."""
        word = self._queues.get(queue)
        return word if word is not None and word.verb is Verb.PAUSE and not word.is_over(now) else None

    def paused(self, now: datetime) -> dict[str, Word]:
        """All paused queues."""
        return {queue: word for queue in self._queues if (word := self.pause_of(queue, now)) is not None}

    def cancel_of(self, job_id: str, now: datetime, replayed_at: datetime | None = None) -> Word | None:
        """The word by which a job is cancelled; None when it is not, or when an operator has replayed it since then."""
        word = self.cancels.get(job_id)
        if word is None or word.is_over(now) or (replayed_at is not None and replayed_at > word.at):
            return None
        return word

    def words(self, now: datetime) -> Iterator[Word]:
        """All that is still needed to know the same."""
        return (word for word in self._all() if not word.is_over(now) and word.verb is not Verb.RESUME)

    def forget(self, now: datetime) -> None:
        """Forgets cancels that are over."""
        for job_id in [job_id for job_id, word in self.cancels.items() if word.is_over(now)]:
            del self.cancels[job_id]

    def _all(self) -> Iterable[Word]:
        yield from self._queues.values()
        yield from self.cancels.values()
