"""Tells a job's life in words: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import humanize

from rmqjobs.events import Event, EventKind
from rmqjobs.lifecycle import State, due_at
from rmqjobs.tracking.reading import Life
from rmqjobs.wire.ids import made_at

_FEW, _MINUTE, _HOUR, _DAY = 10, 60, 3600, 86400  # seconds
WORTH_TELLING = timedelta(milliseconds=100)  # shorter waits are left out


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the story.

    Args:
        at: When, aware.
        text: What happened, in words.
    """

    at: datetime
    text: str


def story(life: Life) -> list[Moment]:
    """What happened to a job, oldest first."""
    return list(_moments(life))


def _moments(life: Life) -> Iterator[Moment]:
    first = life.records[0]
    if first.kind is not EventKind.PUBLISHED and (made := made_at(life.id)) is not None and made <= first.at:
        yield Moment(made, "published, as its id says; by a program that writes no record of it")
    waits_since = first.at if first.kind is EventKind.PUBLISHED else None
    for record, following in zip(life.records, [*life.records[1:], None], strict=True):
        if record.kind is EventKind.PROGRESS and following is not None and following.kind is EventKind.PROGRESS:
            continue  # the latest of a series says it all
        started = _start_of(record)
        if started is not None and waits_since is not None and started - waits_since >= WORTH_TELLING:
            yield Moment(started, f"taken from {_queue(record)} after {_length(started - waits_since)}")
        yield Moment(record.at, _TEXTS[record.kind](record))
        waits_since = due_at(record) or (record.at if record.kind in _WAITS else None)


_WAITS = frozenset({EventKind.PUBLISHED, EventKind.RETRIED, EventKind.SNOOZED, EventKind.RETURNED, EventKind.REPLAYED})
_ENDS_OF_RUNS = frozenset(
    {EventKind.SUCCEEDED, EventKind.RETRIED, EventKind.SNOOZED, EventKind.RETURNED, EventKind.DEAD} | {EventKind.CANCELLED}
)


def outlook(life: Life, now: datetime, lost_since: datetime | None = None) -> str:
    """What comes next, in a sentence; empty when nothing does.

    Args:
        life: The job's.
        now: When it is asked, aware.
        lost_since: When the worker that runs it gave its last sign of life, if that is too long ago.
    """
    latest = life.records[-1]
    due = due_at(latest)
    where = f"in queue {life.queue!r}" if life.queue else "for a worker"
    waiting = f"it has waited {where} for {_length(now - (due or latest.at))}. See: rmqjobs doctor"
    due_in = f"it is due in {_length(due - now)}, at {due.astimezone():%Y-%m-%d %H:%M:%S %Z}" if due is not None else ""
    comes = {
        State.DELAYED: due_in,
        State.RETRYING: due_in,
        State.QUEUED: waiting,
        State.RUNNING: _running(life, now, lost_since),
        State.DEAD: f"an operator decides. See: rmqjobs dlq show {life.id}",
        State.DROPPED: f"nothing, unless it is restored within 30 days: rmqjobs dlq restore {life.id}",
    }.get(life.state(now), "")
    return f"next: {comes}" if comes else ""


def _running(life: Life, now: datetime, lost_since: datetime | None) -> str:
    worker = life.records[-1].source
    if lost_since is None:
        return f"it has run for {_length(now - _started(life))} on {worker}"
    back = "when RabbitMQ notices that, within three heartbeats, another worker gets the job"
    return f"{worker} has given no sign of life since {lost_since.astimezone():%H:%M:%S}; {back}"


def _started(life: Life) -> datetime:
    """When the present run began, as far as is known."""
    began = life.records[-1].at
    for record in reversed(life.records):
        if record.kind not in (EventKind.STARTED, EventKind.PROGRESS, EventKind.LOG):
            break
        began = record.at
    return began


def _start_of(record: Event) -> datetime | None:
    """When the run began that this record ends."""
    seconds = record.data.get("seconds")
    if record.kind in _ENDS_OF_RUNS and isinstance(seconds, int | float):
        return record.at - timedelta(seconds=seconds)
    return record.at if record.kind is EventKind.STARTED else None


def _published(record: Event) -> str:
    by = record.data.get("app") or record.source
    due, priority = due_at(record), record.data.get("priority")
    when = f", to run {_length(due - record.at)} later" if due is not None else ""
    return f"published by {by}{when}" + (f", with priority {priority}" if priority else "")


def _ran(record: Event, how: str) -> str:
    if not record.attempt:
        return f"did not run on {record.source}"
    seconds = record.data.get("seconds")
    after = f" after {_length(timedelta(seconds=seconds))}" if isinstance(seconds, int | float) else ""
    return f"attempt {record.attempt} {how}{after} on {record.source}"


def _error(record: Event) -> str:
    error = str(record.data.get("error") or "").strip()
    return f": {error.splitlines()[0]}" if error else ""


def _wait(record: Event) -> str:
    due = due_at(record)
    return f"; waits {_length(due - record.at)}" if due is not None else ""


def _progress(record: Event) -> str:
    done, total, note = (record.data.get(name) for name in ("done", "total", "note"))
    share = f"{done} of {total}" if total is not None else f"{done}"
    return f"progress: {share}" + (f", {note}" if note else "")


def _cancelled(record: Event) -> str:
    """Written twice: by the operator, and by the worker that had the job."""
    if "by" in record.data:
        return _acted(record, "cancelled")
    return _ran(record, "was stopped" if record.attempt else "") + _error(record)


def _acted(record: Event, what: str) -> str:
    because = record.data.get("because")
    return f"{what} by {record.data.get('by') or record.source}" + (f", because: {because}" if because else "")


_TEXTS: Mapping[EventKind, Callable[[Event], str]] = {
    EventKind.PUBLISHED: _published,
    EventKind.STARTED: lambda record: f"attempt {record.attempt} started on {record.source}",
    EventKind.PROGRESS: _progress,
    EventKind.LOG: lambda record: f"log: {record.data.get('message')}",
    EventKind.SUCCEEDED: lambda record: _ran(record, "succeeded"),
    EventKind.RETRIED: lambda record: _ran(record, "failed") + _error(record) + _wait(record),
    EventKind.SNOOZED: lambda record: _ran(record, "asked to run later") + _wait(record),
    EventKind.RETURNED: lambda record: _ran(record, "was given back") + "; it does not count",
    EventKind.DEAD: lambda record: _ran(record, "failed") + _error(record) + f"; given up: {record.data.get('reason')}",
    EventKind.SKIPPED: lambda record: f"skipped, {record.data.get('reason')}{_error(record)}",
    EventKind.CANCELLED: _cancelled,
    EventKind.REPLAYED: lambda record: _acted(record, "replayed"),
    EventKind.DROPPED: lambda record: _acted(record, "dropped"),
    EventKind.RESTORED: lambda record: _acted(record, "restored to the dead letters"),
}


def _queue(record: Event) -> str:
    return f"queue {record.queue!r}" if record.queue else "its queue"


def _length(span: timedelta) -> str:
    """`0.25 s`, `3 minutes and 20 seconds`, `23 hours and 59 minutes`, `4 days and 2 hours`."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < _MINUTE:
        return f"{seconds:.2g} s" if seconds < _FEW else f"{seconds:.0f} s"
    smallest = "seconds" if seconds < _HOUR else "minutes" if seconds < _DAY else "hours"
    return humanize.precisedelta(span, minimum_unit=smallest, format="%.0f")
