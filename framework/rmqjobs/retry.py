"""The one place that decides what happens to a job after a run. Floor 1: pure, no clock, no randomness, no I/O.

`decide` takes the policy, the job's three counters and the error (an exception *value*, or None) and returns a verdict.
It does nothing itself: the worker settles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from rmqjobs.errors import (
    ChildDied,
    Interrupted,
    InvalidPayload,
    JobCancelled,
    JobExpired,
    MalformedMessage,
    NoHandler,
    PublishedTwice,
    Reject,
    RemoteError,
    Retry,
    Snooze,
    TimeLimitExceeded,
)
from rmqjobs.failures import qualified_name

MAX_CRASHES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed job is tried again.

    Args:
        max_attempts: Runs in all, the first one included.
        first_delay: Wait after the first failure.
        factor: Each further wait is this many times the one before.
        max_delay: No wait is longer, jitter aside.
        jitter: Each wait is lengthened by up to this fraction of itself; it is never shortened.
        never: Exception classes after which there is no further attempt.
        per_error: Another policy for some exception classes (and their subclasses); the first match counts.
            A `TimeLimitExceeded` is retried only if it is named here.
    """

    max_attempts: int = 8
    first_delay: timedelta = timedelta(seconds=5)
    factor: float = 3.0
    max_delay: timedelta = timedelta(hours=1)
    jitter: float = 0.1
    never: tuple[type[BaseException], ...] = ()
    per_error: Mapping[type[BaseException], RetryPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("first_delay", "max_delay"):
            if not isinstance(getattr(self, name), timedelta):
                raise TypeError(
                    f"RetryPolicy({name}={getattr(self, name)!r}): must be a timedelta, such as timedelta(seconds=5)"
                )
        rules = {
            "max_attempts": (self.max_attempts >= 1, "at least 1"),
            "first_delay": (self.first_delay >= timedelta(0), "zero or more"),
            "factor": (self.factor >= 1, "at least 1"),
            "max_delay": (self.max_delay >= self.first_delay, "at least first_delay"),
            "jitter": (0 <= self.jitter <= 1, "between 0 and 1"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ValueError(f"RetryPolicy({name}={getattr(self, name)!r}): must be {wanted}")

    def delay(self, attempt: int, roll: float = 0.0) -> timedelta:
        """The wait after failed attempt number `attempt` (from 1); `roll` in [0, 1) picks the jitter."""
        # The exponent is bounded first: 3.0 ** 10_000 overflows a float.
        growth = self.factor ** min(attempt - 1, 64)
        capped = min(self.first_delay.total_seconds() * growth, self.max_delay.total_seconds())
        return timedelta(seconds=capped * (1 + self.jitter * roll))

    def for_error(self, error: BaseException) -> RetryPolicy:
        """The policy that counts for this error."""
        return next((policy for kind, policy in self.per_error.items() if is_a(error, kind)), self)


# A job type nobody handles yet: in a rolling deploy the worker that knows it is about to come.
UNHANDLED = RetryPolicy(max_attempts=5, first_delay=timedelta(seconds=5), max_delay=timedelta(minutes=5))
# A child may have been killed because its neighbours used up the memory: wait a moment before the next try.
CRASHED = RetryPolicy(max_attempts=MAX_CRASHES, first_delay=timedelta(seconds=2))


class DeadReason(StrEnum):
    """Why a job was given up, in the words operators read."""

    ATTEMPTS = "attempts exhausted"
    REJECTED = "rejected"
    PERMANENT = "permanent error"
    INVALID_PAYLOAD = "invalid payload"
    MALFORMED = "malformed message"
    NO_HANDLER = "no handler"
    CRASH_LOOP = "crash loop"
    TIME_LIMIT = "time limit"


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened to a job before this run ended; the three are never mixed.

    Args:
        attempt: Number of the run that just ended, from 1.
        crashes: Times a process died under the job, before this run.
        unhandled: Times a worker had no handler for it, before this one.
    """

    attempt: int = 1
    crashes: int = 0
    unhandled: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned."""


DONE = Done()


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Run again after `delay`, with these counters."""

    delay: timedelta
    counters: Counters


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Run again at an instant, or after a duration; the attempt does not count. One of the two is set."""

    until: datetime | None
    delay: timedelta | None


@dataclass(frozen=True, slots=True)
class Returned:
    """Give the job back to its queue; nothing counts against it."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Give the job up; it waits in the dead-letter queue."""

    reason: DeadReason


@dataclass(frozen=True, slots=True)
class Skipped:
    """Drop the job without running it, and say so in the journal."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Drop the job because an operator cancelled it."""


Verdict = Done | RetryIn | Snoozed | Returned | Dead | Skipped | Cancelled

# Errors that always mean the same, whatever the policy says.
_FINAL: tuple[tuple[type[Exception], Verdict], ...] = (
    (MalformedMessage, Dead(DeadReason.MALFORMED)),
    (InvalidPayload, Dead(DeadReason.INVALID_PAYLOAD)),
    (Reject, Dead(DeadReason.REJECTED)),
    (JobExpired, Skipped("expired")),
    (PublishedTwice, Skipped("published twice")),
    (JobCancelled, Cancelled()),
    (Interrupted, Returned()),
)


def decide(policy: RetryPolicy, counters: Counters, error: BaseException | None, *, roll: float = 0.0) -> Verdict:
    """What happens to the job now.

    Args:
        policy: The handler's retry policy.
        counters: Attempts, crashes and unhandled receipts up to and including this run.
        error: What went wrong, or None when the handler returned.
        roll: A random number in [0, 1), for the jitter.
    """
    if error is None:
        return DONE
    for kind, verdict in _FINAL:
        if isinstance(error, kind):
            return verdict
    match error:
        case Snooze():
            return Snoozed(error.until, error.for_)
        case NoHandler():
            return _unhandled(counters, roll)
        case ChildDied():
            return _crashed(counters, roll)
        case _:
            return _failed(policy.for_error(error), counters, error, roll, listed=_listed(policy, error))


def is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether the error is of this class; an exception of a child process is compared by qualified name."""
    if isinstance(error, RemoteError):
        return qualified_name(kind) in error.types
    return isinstance(error, kind)


def _listed(policy: RetryPolicy, error: BaseException) -> bool:
    return any(is_a(error, kind) for kind in policy.per_error)


def _failed(policy: RetryPolicy, counters: Counters, error: BaseException, roll: float, *, listed: bool) -> Verdict:
    """An exception of the handler, `Retry`, or the time limit."""
    timed_out = isinstance(error, TimeLimitExceeded)
    if timed_out and not listed:
        return Dead(DeadReason.TIME_LIMIT)
    if any(is_a(error, kind) for kind in policy.never):
        return Dead(DeadReason.PERMANENT)
    if counters.attempt >= policy.max_attempts:
        return Dead(DeadReason.TIME_LIMIT if timed_out else DeadReason.ATTEMPTS)
    delay = policy.delay(counters.attempt, roll)
    if isinstance(error, Retry) and error.after is not None:
        delay = error.after
    return RetryIn(delay, Counters(counters.attempt + 1, counters.crashes, counters.unhandled))


def _unhandled(counters: Counters, roll: float) -> Verdict:
    seen = counters.unhandled + 1
    if seen >= UNHANDLED.max_attempts:
        return Dead(DeadReason.NO_HANDLER)
    return RetryIn(UNHANDLED.delay(seen, roll), Counters(counters.attempt, counters.crashes, seen))


def _crashed(counters: Counters, roll: float) -> Verdict:
    crashes = counters.crashes + 1
    if crashes >= MAX_CRASHES:
        return Dead(DeadReason.CRASH_LOOP)
    return RetryIn(CRASHED.delay(crashes, roll), Counters(counters.attempt, crashes, counters.unhandled))
