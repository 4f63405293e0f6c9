"""What happens to a failed job: one table, a row for each rule."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqjobs.errors import (
    ChildDied,
    Interrupted,
    InvalidPayload,
    JobExpired,
    MalformedMessage,
    NoHandler,
    Reject,
    RemoteError,
    Retry,
    Snooze,
    TimeLimitExceeded,
)
from rmqjobs.retry import Counters, Dead, DeadReason, Done, RetryIn, RetryPolicy, Returned, Skipped, Snoozed, decide

S = timedelta(seconds=1)
PLAIN = RetryPolicy(max_attempts=3, first_delay=5 * S, factor=3, max_delay=40 * S, jitter=0)
PICKY = RetryPolicy(
    max_attempts=3,
    first_delay=5 * S,
    jitter=0,
    never=(ValueError,),
    per_error={
        ConnectionError: RetryPolicy(max_attempts=9, first_delay=S, jitter=0),
        TimeLimitExceeded: RetryPolicy(max_attempts=2, first_delay=2 * S, jitter=0),
    },
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
REMOTE_REFUSED = RemoteError(("ConnectionRefusedError", "ConnectionError", "OSError", "Exception"), "no", "")
REMOTE_VALUE = RemoteError(("pydantic_core.ValidationError", "ValueError", "Exception"), "no", "")

TABLE = [
    ("a handler that returns is done", PLAIN, Counters(), None, Done()),
    ("the first failure waits the first delay", PLAIN, Counters(1), KeyError(), RetryIn(5 * S, Counters(2))),
    ("each further wait is factor times longer", PLAIN, Counters(2), KeyError(), RetryIn(15 * S, Counters(3))),
    ("the last attempt's failure kills", PLAIN, Counters(3), KeyError(), Dead(DeadReason.ATTEMPTS)),
    ("more attempts than allowed kill too", PLAIN, Counters(7), KeyError(), Dead(DeadReason.ATTEMPTS)),
    (
        "Retry(after=) sets the wait and spends an attempt",
        PLAIN,
        Counters(1),
        Retry(after=90 * S),
        RetryIn(90 * S, Counters(2)),
    ),
    ("Retry() waits as the policy says", PLAIN, Counters(1), Retry(), RetryIn(5 * S, Counters(2))),
    ("Retry cannot outlive the attempts", PLAIN, Counters(3), Retry(after=S), Dead(DeadReason.ATTEMPTS)),
    ("Reject kills at once", PLAIN, Counters(1), Reject("no"), Dead(DeadReason.REJECTED)),
    ("Snooze spends no attempt", PLAIN, Counters(2), Snooze(until=NOON), Snoozed(NOON, None)),
    ("Snooze for a while", PLAIN, Counters(9), Snooze(for_=S), Snoozed(None, S)),
    ("never means never", PICKY, Counters(1), ValueError(), Dead(DeadReason.PERMANENT)),
    ("never counts subclasses", PICKY, Counters(1), UnicodeError(), Dead(DeadReason.PERMANENT)),
    ("never counts errors of child processes", PICKY, Counters(1), REMOTE_VALUE, Dead(DeadReason.PERMANENT)),
    ("an error class may have its own policy", PICKY, Counters(5), ConnectionResetError(), RetryIn(81 * S, Counters(6))),
    ("and so may it in a child process", PICKY, Counters(1), REMOTE_REFUSED, RetryIn(S, Counters(2))),
    ("other errors keep the handler's policy", PICKY, Counters(3), KeyError(), Dead(DeadReason.ATTEMPTS)),
    ("the time limit kills", PLAIN, Counters(1), TimeLimitExceeded(), Dead(DeadReason.TIME_LIMIT)),
    ("unless a policy for it says otherwise", PICKY, Counters(1), TimeLimitExceeded(), RetryIn(2 * S, Counters(2))),
    ("and then its attempts run out as time limit", PICKY, Counters(2), TimeLimitExceeded(), Dead(DeadReason.TIME_LIMIT)),
    ("an invalid payload dies", PLAIN, Counters(1), InvalidPayload(), Dead(DeadReason.INVALID_PAYLOAD)),
    ("a malformed message dies", PLAIN, Counters(1), MalformedMessage(), Dead(DeadReason.MALFORMED)),
    ("an unknown type waits for its worker", PLAIN, Counters(1, 0, 0), NoHandler(), RetryIn(5 * S, Counters(1, 0, 1))),
    ("and dies when none comes", PLAIN, Counters(1, 0, 4), NoHandler(), Dead(DeadReason.NO_HANDLER)),
    ("a dead child counts a crash, not an attempt", PLAIN, Counters(2, 0), ChildDied(), RetryIn(2 * S, Counters(2, 1))),
    ("the third crash is a crash loop", PLAIN, Counters(1, 2), ChildDied(), Dead(DeadReason.CRASH_LOOP)),
    ("crashes do not use up attempts", PLAIN, Counters(2, 2), KeyError(), RetryIn(15 * S, Counters(3, 2))),
    ("a drain returns the job, whatever it counted", PLAIN, Counters(3, 2, 4), Interrupted(), Returned()),
    ("an expired job is skipped", PLAIN, Counters(1), JobExpired(), Skipped("expired")),
]


@pytest.mark.parametrize(("policy", "counters", "error", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decide(policy: RetryPolicy, counters: Counters, error: BaseException | None, verdict: object) -> None:
    assert decide(policy, counters, error) == verdict


@given(attempt=st.integers(1, 10_000), roll=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1))
def test_jitter_only_lengthens_and_no_wait_exceeds_the_cap_by_more_than_it(attempt: int, roll: float, jitter: float) -> None:
    policy = RetryPolicy(jitter=jitter)
    plain, waited = RetryPolicy(jitter=0).delay(attempt), policy.delay(attempt, roll)
    assert plain <= waited <= policy.max_delay * (1 + jitter) + timedelta(microseconds=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"first_delay": -S},
        {"factor": 0.5},
        {"max_delay": S, "first_delay": 2 * S},
        {"jitter": 1.5},
        {"jitter": -0.1},
    ],
)
def test_an_impossible_policy_names_the_value(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"RetryPolicy\("):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
