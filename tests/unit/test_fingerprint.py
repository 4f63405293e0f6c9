"""Equal failures share a fingerprint; different ones do not."""

import pytest

from rmqjobs.fingerprint import fingerprint, normalised

TRACE = """Traceback (most recent call last):
  File "/opt/app/.venv/lib/python3.11/site-packages/rmqjobs/execution/loop.py", line 24, in run
  File "/opt/app/.venv/lib/python3.11/site-packages/rmqjobs_video/handlers.py", line {line}, in transcode
  File "/usr/lib/python3.11/json/__init__.py", line 346, in loads
ValueError: boom
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user 42 is gone", "user 43 is gone"),
        ("cannot open '/tmp/a/b.mp4'", "cannot open '/var/c.mp4'"),
        ("job 0190b5a0-1111-7abc-8def-000000000001 late", "job 0190b5a0-2222-7abc-8def-00000000000f late"),
        ("GET https://a.example/x?y=1 failed", "GET https://b.example/ failed"),
        ("at 0x7f00aa", "at 0x55bb10"),
    ],
)
def test_variable_parts_do_not_count(one: str, other: str) -> None:
    assert fingerprint("E", one) == fingerprint("E", other)


def test_class_message_and_frame_count() -> None:
    base = fingerprint("ValueError", "boom", TRACE.format(line=10))
    assert base == fingerprint("ValueError", "boom", TRACE.format(line=99))
    assert base != fingerprint("KeyError", "boom", TRACE.format(line=10))
    assert base != fingerprint("ValueError", "bang", TRACE.format(line=10))
    assert base != fingerprint("ValueError", "boom", TRACE.format(line=10).replace("transcode", "announce"))


def test_the_frame_is_the_applications_not_the_librarys() -> None:
    elsewhere = TRACE.format(line=10).replace("json/__init__", "csv").replace("loads", "reader")
    assert fingerprint("E", "m", TRACE.format(line=10)) == fingerprint("E", "m", elsewhere)


def test_text_without_variable_parts_stays() -> None:
    assert normalised("connection refused") == "connection refused"


@pytest.mark.parametrize("text", ["acgt", "/a", "a/", "'", "\"'", "0x", "1.", "ab12-", 'File "', "://"])
def test_whatever_a_user_may_quote_takes_time_in_proportion_to_its_length(text: str) -> None:
    """Fifty megabytes; the former pattern of a URL would not have come to an end within this test's time limit."""
    long = text * (50_000_000 // len(text))
    assert normalised(long[:1_000_000])
    assert len(fingerprint("ValueError", long, long)) == 12


def test_a_word_before_a_url_is_a_part_of_neither() -> None:
    assert normalised("seehttps://a.example/x now") == "<url> now"
    assert normalised("GET https://a.example/x now") == "GET <url> now"
