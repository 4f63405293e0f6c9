"""What people type to find jobs: `type:video.transcode state:dead since:2h "disk full"`. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from rmqjobs.errors import InvalidFilter
from rmqjobs.lifecycle import State
from rmqjobs.settings import parse_duration

MAX_LENGTH, MAX_PARTS = 1_000, 30
KEYS = ("type", "state", "queue", "worker", "error", "since", "before", "text")
_PART = re.compile(r'(?:(?P<key>[A-Za-z_.]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>\S+))')
_ALIASES = {"failed": State.DEAD, "succeeded": State.DONE, "waiting": State.QUEUED}


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs. Values of one kind are alternatives, kinds are all required.

    Args:
        types: Job types.
        states: States.
        queues: Work queues.
        workers: Part of the worker's name, such as its host.
        errors: Class names of exceptions, without the module.
        since: Published at this instant or later.
        before: Published before this instant.
        text: Part of the id, or of the latest error.
    """

    types: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    queues: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    text: tuple[str, ...] = field(default=())

    @property
    def is_counted(self) -> bool:
        """Whether the model keeps the number of such jobs at hand."""
        return not (self.workers or self.errors or self.since or self.before or self.text)


def parse(text: str, now: datetime) -> JobFilter:
    """Reads a filter.

    Args:
        text: What was typed.
        now: For `since:2h`.

    Raises:
        InvalidFilter: A part cannot be read; the error names it.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(f"the filter has {len(text):,} characters, and the limit is {MAX_LENGTH:,}")
    found, end = JobFilter(), 0
    for count, match in enumerate(_PART.finditer(text)):
        if count == MAX_PARTS:
            raise InvalidFilter(f"the filter has more than {MAX_PARTS} parts")
        if rest := text[end : match.start()].strip():
            raise InvalidFilter(f"{rest!r} cannot be read")
        end = match.end()
        value = match["quoted"] if match["quoted"] is not None else match["plain"]
        found = _with(found, match["key"] or "text", value, now)
    return found


def _with(found: JobFilter, key: str, value: str, now: datetime) -> JobFilter:
    reader = _READERS.get(key)
    if reader is None:
        close = difflib.get_close_matches(key, KEYS, n=1)
        hint = f"Did you mean {close[0]}:?" if close else f"There are {', '.join(f'{each}:' for each in KEYS)}"
        raise InvalidFilter(f"{key!r} is not a part of a job to look for. {hint}")
    if not value:
        raise InvalidFilter(f"{key}: has no value")
    return reader(found, value, now)


def _state(value: str) -> State:
    try:
        return _ALIASES[value] if value in _ALIASES else State(value)
    except ValueError:
        raise InvalidFilter(f"state:{value} is not a state. States are {', '.join(State)}") from None


def _time(key: str, value: str, now: datetime) -> datetime:
    """`2h` ago, or an ISO 8601 time; without a zone it is local."""
    try:
        duration = parse_duration(value)
        if isinstance(duration, timedelta):
            return now - duration
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError, OSError):
        raise InvalidFilter(f"{key}:{value} is not a time. Write 2h, 7d or an ISO 8601 time") from None


_READERS: Mapping[str, Callable[[JobFilter, str, datetime], JobFilter]] = {
    "type": lambda found, value, _: replace(found, types=(*found.types, value)),
    "state": lambda found, value, _: replace(found, states=(*found.states, _state(value))),
    "queue": lambda found, value, _: replace(found, queues=(*found.queues, value)),
    "worker": lambda found, value, _: replace(found, workers=(*found.workers, value)),
    "error": lambda found, value, _: replace(found, errors=(*found.errors, value.rpartition(".")[2])),
    "since": lambda found, value, now: replace(found, since=_time("since", value, now)),
    "before": lambda found, value, now: replace(found, before=_time("before", value, now)),
    "text": lambda found, value, _: replace(found, text=(*found.text, value)),
}
