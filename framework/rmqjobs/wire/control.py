"""The messages of the control stream: JSON lines. Each says one thing; a line of cancels names many jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rmqjobs.control import CANCEL_KEPT, Verb, Word
from rmqjobs.topology import Names
from rmqjobs.wire.events import NDJSON
from rmqjobs.wire.headers import CONTROL_START, milliseconds
from rmqjobs.wire.jobs import Message
from rmqjobs.wire.values import as_json

AT_ONCE = 5_000  # words in a message: some 300 KB


def messages(names: Names, words: Iterable[Word], *, start: int, reply_to: str | None = None) -> list[Message]:
    """The messages that say these words.

    Args:
        names: Has the name of the stream.
        words: What is said.
        start: From this offset on, whoever begins to read finds everything that still counts.
        reply_to: Where workers answer.
    """
    all_of_it = list(words)
    parts = (all_of_it[first : first + AT_ONCE] for first in range(0, len(all_of_it), AT_ONCE))
    return [_message(names, part, start, reply_to) for part in parts]


def repetition(names: Names, words: Iterable[Word], *, start: int, new_start: int) -> list[Message]:
    """The messages that repeat what still counts; the last one has the new start, and is for when all others are safe."""
    *others, last = messages(names, words, start=start) or [_message(names, (), start)]
    return [*others, replace(last, headers={CONTROL_START: new_start})]


def decode(body: bytes, place: int) -> Iterator[Word]:
    """The words of a message; a line that this version does not understand is left out.

    Args:
        body: The message's body.
        place: Its offset in the stream.
    """
    for line in body.splitlines():
        try:
            yield from _words(json.loads(line), place)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue


def start_of(headers: Mapping[str, Any] | None) -> int:
    """Where to begin reading, as a message of the stream says; 0 when it does not."""
    value = (headers or {}).get(CONTROL_START)
    return value if isinstance(value, int) and value >= 0 else 0


def _message(names: Names, words: Sequence[Word], start: int, reply_to: str | None = None) -> Message:
    body = b"\n".join(map(as_json, _lines(words)))
    return Message("", names.control, body, headers={CONTROL_START: start}, content_type=NDJSON, reply_to=reply_to)


def _lines(words: Sequence[Word]) -> Iterator[dict[str, Any]]:
    cancels: dict[tuple[str, str, timedelta], dict[str, int]] = {}
    for word in words:
        if word.verb is Verb.CANCEL:
            kept = word.until - word.at if word.until is not None else CANCEL_KEPT
            cancels.setdefault((word.by, word.because, kept), {})[word.subject] = milliseconds(word.at)
        else:
            line = {"verb": word.verb, "subject": word.subject, "at": word.at, "by": word.by, "because": word.because}
            yield line | {"until": word.until, "place": word.place if word.place >= 0 else None}
    for (by, because, kept), subjects in cancels.items():
        line = {"verb": Verb.CANCEL, "subjects": subjects, "by": by, "because": because}
        yield line | {"kept_seconds": kept.total_seconds()}


def _words(line: dict[str, Any], place: int) -> Iterator[Word]:
    verb, by, because = Verb(line["verb"]), str(line.get("by") or ""), str(line.get("because") or "")
    if verb is Verb.CANCEL:
        kept = timedelta(seconds=line.get("kept_seconds") or CANCEL_KEPT.total_seconds())
        for job_id, said_at in line["subjects"].items():
            at = datetime.fromtimestamp(said_at / 1000, UTC)
            yield Word(verb, job_id, at, by, because, at + kept, place)
        return
    until = datetime.fromisoformat(line["until"]) if line.get("until") else None
    at, first_place = datetime.fromisoformat(line["at"]), line.get("place")
    if at.tzinfo is None or (until is not None and until.tzinfo is None):
        raise ValueError("a time without a zone")
    yield Word(verb, str(line["subject"]), at, by, because, until, place if first_place is None else int(first_place))
