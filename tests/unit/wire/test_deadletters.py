"""Dead letters: written, read, sent on, put aside and brought back, always with the body as it came."""

from datetime import UTC, datetime, timedelta

from rmqjobs.failures import Failure
from rmqjobs.retry import DeadReason
from rmqjobs.topology import Names
from rmqjobs.wire import deadletters
from rmqjobs.wire import headers as h
from rmqjobs.wire.deadletters import Cause
from tests.unit.wire.test_jobs import NOW, Received, received

NAMES = Names()
CAUSE = Cause(DeadReason.ATTEMPTS, Failure(("ValueError",), "boom", "Traceback …"), 8, "mail", "w@h:1", "rmqjobs-mail 1.0")
JOB = Received(
    b"\xffodd", "mail.send", message_id="7", type="mail.send", headers={"tenant": "acme", h.SCHEDULED_FOR: 1, "x-death": []}
)


def dead() -> Received:
    return received(deadletters.bury(NAMES, JOB, CAUSE, job_id="7", failed_at=NOW))


def test_a_dead_letter_says_why_and_keeps_the_body() -> None:
    message = deadletters.bury(NAMES, JOB, CAUSE, job_id="7", failed_at=NOW)
    assert (message.exchange, message.routing_key, message.body) == ("rmqjobs.dead", "mail", b"\xffodd")
    letter = deadletters.read(received(message), "mail")
    assert (letter.id, letter.type, letter.queue, letter.reason) == ("7", "mail.send", "mail", "attempts exhausted")
    assert (letter.attempts, letter.failed_at, letter.first_failed_at) == (8, NOW, NOW)
    assert letter.headers == {"tenant": "acme"}


def test_a_replay_starts_afresh_and_is_counted() -> None:
    message = deadletters.replay(NAMES, dead(), deadletters.read(dead(), "mail"), at=NOW)
    assert (message.exchange, message.routing_key, message.body, message.message_id) == (
        "rmqjobs.jobs",
        "mail.send",
        b"\xffodd",
        "7",
    )
    assert message.headers == {"tenant": "acme", h.SCHEDULED_FOR: 1, h.REPLAYS: 1, h.REPLAYED_AT: h.milliseconds(NOW)}
    assert deadletters.read(received(message), "mail").replays == 1


def test_a_dropped_letter_comes_back_as_it_was() -> None:
    letter = deadletters.read(dead(), "mail")
    dropped = received(deadletters.drop(NAMES, dead(), letter, at=NOW, because="spam"))
    seen = deadletters.read(dropped, "")
    assert (seen.dropped_at, seen.queue) == (NOW, "mail")
    back = deadletters.restore(NAMES, dropped, seen)
    assert (back.exchange, back.routing_key, back.headers) == ("rmqjobs.dead", "mail", dead().headers)


def test_what_the_broker_dead_lettered_by_itself_is_readable() -> None:
    died = datetime(2026, 1, 1)  # noqa: DTZ001 - as AMQP libraries give it
    death = {"reason": "delivery_limit", "queue": "rmqjobs.mail", "routing-keys": ["mail.send"], "time": died, "count": 1}
    letter = deadletters.read(Received(b"{}", "mail", headers={"x-death": [death]}), "mail")
    assert (letter.type, letter.reason, letter.failed_at) == ("mail.send", "delivery limit", died.replace(tzinfo=UTC))


def test_a_foreign_message_in_a_dead_letter_queue_is_shown_too() -> None:
    letter = deadletters.read(Received(b"", "x", headers={h.FAILED_AT: "yesterday", h.ATTEMPTS: "many"}), "mail")
    assert (letter.reason, letter.failed_at, letter.attempts) == ("unknown", None, 0)


def test_the_age_of_a_letter_is_that_of_its_last_failure() -> None:
    assert NOW - deadletters.read(dead(), "mail").failed_at == timedelta(0)  # type: ignore[operator]
