"""Payloads, job types and the job a handler sees."""

import pytest

from rmqjobs.errors import InvalidPayload, MalformedMessage
from rmqjobs.job import Handler, Job, Payload, Pool, check_job_type


class Send(Payload, type="mail.send"):
    to: str
    copies: int = 1


class SendTwice(Send, type="mail.twice"):
    pass


def handle(payload: Send) -> None: ...


HANDLER = Handler(handle, Send, Pool.THREAD, "mail.thread")


def test_the_class_carries_the_job_type() -> None:
    assert (Send.job_type, SendTwice.job_type, Send(to="a").job_type) == ("mail.send", "mail.twice", "mail.send")


@pytest.mark.parametrize("wrong", ["", "Mail.Send", "mail..send", "mail.*", "mail.#", ".mail", "mail send", "x" * 200])
def test_a_wrong_job_type_is_refused_where_it_is_written(wrong: str) -> None:
    with pytest.raises(ValueError, match="job type"):
        check_job_type(wrong)
    with pytest.raises(ValueError, match="job type"):
        type("Wrong", (Payload,), {}, type=wrong)


def test_a_valid_body_becomes_the_payload() -> None:
    assert HANDLER.validate(b'{"to": "ada", "copies": 2}') == Send(to="ada", copies=2)


def test_fields_of_a_newer_producer_are_ignored() -> None:
    assert HANDLER.validate(b'{"to": "ada", "new": 1}') == Send(to="ada")


def test_an_invalid_payload_names_fields_and_never_values() -> None:
    with pytest.raises(InvalidPayload) as caught:
        HANDLER.validate(b'{"copies": "topsecret"}')
    assert "to: Field required" in str(caught.value)
    assert "copies: Input should be a valid integer" in str(caught.value)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nope"])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        HANDLER.validate(body)


def test_a_job_reports_and_keeps_its_checkpoint() -> None:
    reports: list[object] = []
    job = Job("1", "mail.send", reporter=lambda _job, kind, data: reports.append((kind, dict(data))))
    job.progress(1, 2, "half")
    job.log("sent", to="ada")
    job.checkpoint({"sent": 1})
    assert reports == [
        ("progress", {"done": 1, "total": 2, "note": "half"}),
        ("log", {"message": "sent", "to": "ada"}),
        ("checkpoint", {"state": {"sent": 1}}),
    ]
    assert job.state == {"sent": 1}
