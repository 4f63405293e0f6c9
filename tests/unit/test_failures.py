"""Exceptions as text: whole, short, and never a reason for another failure."""

import pytest

from rmqjobs.errors import RemoteError
from rmqjobs.failures import MAX_MESSAGE, MAX_TRACEBACK, MAX_TYPE, Failure, failure_of, printable, remote_error, text_form


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


def test_class_message_and_traceback() -> None:
    failure = failure_of(raised(ConnectionRefusedError("nobody there")))
    assert failure.types == ("ConnectionRefusedError", "ConnectionError", "OSError", "Exception", "BaseException")
    assert (failure.type, failure.message) == ("ConnectionRefusedError", "nobody there")
    assert "test_failures.py" in failure.traceback
    assert str(failure) == "ConnectionRefusedError: nobody there"


def test_an_error_of_a_child_process_keeps_its_own_class_and_traceback() -> None:
    failure = Failure(("app.Broken", "Exception"), "boom", "Traceback …")
    assert failure_of(remote_error(failure)) == failure
    assert failure_of(RemoteError(("app.Broken",), "boom", "Traceback …"), traceback=False).traceback == ""


def test_what_was_not_raised_has_no_traceback() -> None:
    assert failure_of(ValueError("boom")).traceback == ""


@pytest.mark.parametrize("text", ["x" * 50_000_000, "☃" * 100_000, "line\n" * 100_000], ids=["letters", "snowmen", "lines"])
def test_long_texts_are_cut_where_it_hurts_least(text: str) -> None:
    failure = failure_of(raised(ValueError(text)))
    assert len(failure.message) == MAX_MESSAGE
    assert failure.message.endswith(f"… ({len(text):,} characters)")
    assert "in raised" in failure.traceback
    assert len(failure.traceback) <= MAX_TRACEBACK


def test_a_deep_traceback_keeps_its_end() -> None:
    def deep(level: int) -> None:
        if level:
            deeper(level - 1)
        raise ValueError("at the bottom")

    def deeper(level: int) -> None:
        deep(level)

    try:
        deep(300)
    except ValueError as error:
        failure = failure_of(error)
    assert len(failure.traceback) == MAX_TRACEBACK
    assert failure.traceback.endswith("ValueError: at the bottom\n")


def test_half_characters_become_whole_ones() -> None:
    failure = failure_of(raised(OSError("caf\udce9.mp4")))
    assert failure.message == "caf\\udce9.mp4"
    assert failure.traceback.encode().endswith(b"caf\\udce9.mp4\n")


def test_a_class_name_is_bounded_too() -> None:
    kind = type("Long" * 1_000, (Exception,), {"__module__": "app"})
    assert len(failure_of(kind("boom")).type) == MAX_TYPE


def test_text_that_cannot_be_had_is_said_to_be_so() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise LookupError

        def __repr__(self) -> str:
            raise LookupError

    for form in (printable, text_form):
        text = form(Broken())
        assert text.endswith("Broken: its text is not available, LookupError was raised>")
    assert "its text is not available" in failure_of(raised(Broken())).message
