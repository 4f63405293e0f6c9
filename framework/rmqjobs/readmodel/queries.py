"""Answers from the read model. Lists come from indexes alone; what a job carried is read for one job at a time."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rmqjobs.errors import InvalidFilter
from rmqjobs.events import Event, EventKind
from rmqjobs.lifecycle import State
from rmqjobs.readmodel.filters import JobFilter

PAGE, MOST = 50, 1_000
COUNTED = 10_000  # a count that no table keeps stops there
LOOKED_THROUGH = 50_000  # of the newest jobs, for a text that no index knows
TIME_LIMIT = 2.0  # seconds of one query
STEPS = 100_000  # of SQLite's machine, between two looks at the clock
MOST_PARTS = 64  # combinations of values that one filter may mean


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a list.

    Args:
        id: Its id.
        type: Its job type.
        queue: The work queue that it was last seen in.
        worker: The worker that had it last.
        app: Who published it.
        state: Where it is.
        due: Until when it waits, if it does.
        at: When it last changed.
        first: When it was first heard of.
        attempt: Number of its latest run.
        error_type: Class name of its latest error.
        error: Its latest error, shortened.
        progress: What its handler last reported: `done`, `total`, `note`.
    """

    id: str
    type: str
    queue: str
    worker: str
    app: str
    state: State
    due: datetime | None
    at: datetime
    first: datetime
    attempt: int
    error_type: str
    error: str
    progress: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, those that were published last first.

    Args:
        jobs: The jobs.
        after: Where the next page begins; None when this is the last one.
        searched: When not all jobs were looked through: how many of the newest ones were.
    """

    jobs: list[JobRow]
    after: str | None
    searched: int | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs.

    Args:
        jobs: The number.
        is_more: There are more than that.
    """

    jobs: int
    is_more: bool = False


_COLUMNS = "id, type, queue, worker, app, state, due, at, first, attempt, error_type, error, progress"


class Queries:
    """Questions to a model.

    Args:
        connection: From `schema.connect`; only one thread at a time may use it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def jobs(self, which: JobFilter, *, limit: int = PAGE, after: str | None = None) -> Page:
        """A page of jobs.

        Args:
            which: The filter.
            limit: The most jobs.
            after: `Page.after` of the page before.

        Raises:
            InvalidFilter: `after` is not one, or the question takes too long.
        """
        limit = min(max(limit, 1), MOST)
        begins = () if after is None else _place_of_page(after)
        with self._in_time():
            found = [row for one in self._parts(which) for row in self._rows(one, limit + 1, begins)]
        found.sort(key=lambda row: (row.first, row.id), reverse=True)
        searched = min(self.count(JobFilter()).jobs, LOOKED_THROUGH) if which.text else None
        last = found[limit - 1] if len(found) > limit else None
        return Page(found[:limit], f"{_ms(last.first)}.{last.id}" if last else None, searched)

    def count(self, which: JobFilter) -> Count:
        """How many jobs there are; exact without limit for type, state and queue."""
        with self._in_time():
            if which.is_counted:
                where, values = _conditions(which)
                (jobs,) = self._db.execute(f"SELECT coalesce(sum(jobs), 0) FROM counts{where}", values).fetchone()
                return Count(jobs)
            jobs = sum(self._count(one) for one in self._parts(which))
        return Count(min(jobs, COUNTED), jobs > COUNTED)

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        found = dict(self._db.execute("SELECT state, sum(jobs) FROM counts GROUP BY state"))
        return {state: found.get(state.value, 0) for state in State}

    def types(self) -> dict[str, dict[str, int]]:
        """How many jobs each type has in each state."""
        found: dict[str, dict[str, int]] = {}
        for kind, state, jobs in self._db.execute(
            "SELECT type, state, sum(jobs) FROM counts WHERE jobs > 0 GROUP BY type, state"
        ):
            found.setdefault(kind, {})[state] = jobs
        return found

    def records(self, job_id: str) -> list[Event]:
        """Everything that is known of one job, in order; with the results and logs that lists leave out."""
        columns = "kind, at, type, queue, attempt, source, data"
        query = f"SELECT {columns} FROM records WHERE job = ? ORDER BY place"
        return [
            Event(EventKind(kind), _instant(at), job_id, type_, queue, attempt, json.loads(data), source)
            for kind, at, type_, queue, attempt, source, data in self._db.execute(query, (job_id,))
        ]

    def ids(self, beginning: str, limit: int = 10) -> list[str]:
        """Ids that begin like this."""
        query = "SELECT id FROM jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [job_id for (job_id,) in self._db.execute(query, (beginning, beginning + "\U0010ffff", limit))]

    def workers(self) -> list[Event]:
        """The last beat of each worker, scheduler and web server."""
        return [
            Event(EventKind(role), _instant(at), "", "", data=json.loads(data), source=name)
            for name, role, at, data in self._db.execute("SELECT name, role, at, data FROM workers ORDER BY name")
        ]

    def ticks(self, schedule: str | None = None, limit: int = PAGE) -> list[dict[str, Any]]:
        """What happened to a schedule, or to all of them, the latest first."""
        where, values = ("WHERE schedule = ?", [schedule]) if schedule is not None else ("", [])
        query = f"SELECT schedule, kind, at, job, source, data FROM ticks {where} ORDER BY place DESC LIMIT ?"
        names = ("schedule", "kind", "at", "job", "source", "data")
        rows = (dict(zip(names, row, strict=True)) for row in self._db.execute(query, (*values, min(limit, MOST))))
        return [row | {"at": _instant(row["at"]), "data": json.loads(row["data"])} for row in rows]

    def actions(self, limit: int = PAGE, before: datetime | None = None) -> list[dict[str, Any]]:
        """What operators did to queues, workers and many jobs, the latest first."""
        query = "SELECT at, data FROM actions WHERE at < ? ORDER BY at DESC LIMIT ?"
        rows = self._db.execute(query, (_ms(before) if before else 2**62, min(limit, MOST)))
        return [{"at": _instant(at), **json.loads(data)} for at, data in rows]

    def rates(self, since: datetime, type_: str | None = None) -> list[dict[str, Any]]:
        """What happened in each minute: kind of record, how many, and the seconds of their runs; of all types, or of one."""
        where, values = ("AND type = ?", [type_]) if type_ is not None else ("", [])
        columns = "minute, kind, sum(jobs), sum(microseconds)"
        query = f"SELECT {columns} FROM rates WHERE minute >= ? {where} GROUP BY minute, kind ORDER BY minute"
        rows = self._db.execute(query, (_ms(since) // 60_000, *values))
        return [
            {"minute": _instant(minute * 60_000), "kind": kind, "jobs": jobs, "seconds": microseconds / 1_000_000}
            for minute, kind, jobs, microseconds in rows
        ]

    @property
    def reaches_back_to(self) -> datetime | None:
        """When the oldest job was published; None while there is none."""
        (at,) = self._db.execute("SELECT min(first) FROM jobs").fetchone()
        return None if at is None else _instant(at)

    def _parts(self, which: JobFilter) -> list[JobFilter]:
        """The same as filters with one value of each kind: each of them is one walk along one index."""
        workers = which.workers and self._workers_like(which.workers)
        if which.workers and not workers:
            return []
        choices: list[tuple[Any, ...]] = [
            each or (None,) for each in (which.types, which.states, which.queues, which.errors, workers)
        ]
        if math.prod(map(len, choices)) > MOST_PARTS:
            raise InvalidFilter(f"the filter means more than {MOST_PARTS} combinations. Name fewer values")
        alone = (tuple(() if value is None else (value,) for value in each) for each in itertools.product(*choices))
        return [
            replace(which, types=types, states=states, queues=queues, errors=errors, workers=workers)
            for types, states, queues, errors, workers in alone
        ]

    def _workers_like(self, parts: Sequence[str]) -> tuple[str, ...]:
        condition = " OR ".join(["name GLOB ?"] * len(parts))
        query = f"SELECT name FROM workers WHERE {condition} LIMIT {MOST_PARTS}"
        return tuple(name for (name,) in self._db.execute(query, [f"*{_literal(part)}*" for part in parts]))

    def _rows(self, which: JobFilter, limit: int, begins: Sequence[Any]) -> list[JobRow]:
        where, values = _conditions(which, begins)
        query = f"SELECT {_COLUMNS} FROM {_source(which)}{where} ORDER BY first DESC, id DESC LIMIT ?"
        return [_row(each) for each in self._db.execute(query, (*values, limit))]

    def _count(self, which: JobFilter) -> int:
        where, values = _conditions(which)
        query = f"SELECT count(*) FROM (SELECT 1 FROM {_source(which)}{where} LIMIT {COUNTED + 1})"
        (jobs,) = self._db.execute(query, values).fetchone()
        return int(jobs)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Ends a query that takes too long."""
        end = datetime.now(UTC) + timedelta(seconds=TIME_LIMIT)
        self._db.set_progress_handler(lambda: datetime.now(UTC) > end, STEPS)
        try:
            yield
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            raise InvalidFilter(
                f"this takes longer than {TIME_LIMIT:g} s. Narrow it down, such as with type: or since:"
            ) from None
        finally:
            self._db.set_progress_handler(None, 0)


def _source(which: JobFilter) -> str:
    """Where to look: no index knows texts, so they are looked for in the newest jobs only."""
    return f"(SELECT * FROM jobs ORDER BY first DESC, id DESC LIMIT {LOOKED_THROUGH})" if which.text else "jobs"


def _conditions(which: JobFilter, begins: Sequence[Any] = ()) -> tuple[str, list[Any]]:
    """The WHERE of a filter, and its values.

    Args:
        which: The filter.
        begins: Only jobs after this one: its `first`, and its id.
    """
    where: list[str] = []
    values: list[Any] = []
    alternatives = {
        "type": which.types, "state": which.states, "queue": which.queues, "error_type": which.errors, "worker": which.workers,
    }  # fmt: skip
    for column, wanted in alternatives.items():
        if wanted:
            where.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            values += map(str, wanted)
            if column in ("error_type", "worker"):
                where.append(f"{column} != ''")  # as their indexes say
    bounds = (("first >= ?", which.since), ("first < ?", which.before))
    for condition, at in bounds:
        if at is not None:
            where.append(condition)
            values.append(_ms(at))
    for text in which.text:
        where.append("(error GLOB ? OR id GLOB ?)")
        values += [f"*{_literal(text)}*"] * 2
    if begins:
        where.append("(first, id) < (?, ?)")
        values += begins
    return (f" WHERE {' AND '.join(where)}" if where else ""), values


def _literal(text: str) -> str:
    """The text for GLOB, without its wildcards."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in text)


def _place_of_page(after: str) -> list[Any]:
    at, dot, job_id = after.partition(".")
    if not dot or not at.lstrip("-").isdigit():
        raise InvalidFilter(f"{after!r} is not the beginning of a page")
    return [int(at), job_id]


def _row(columns: Sequence[Any]) -> JobRow:
    job_id, type_, queue, worker, app, state, due, at, first, attempt, error_type, error, progress = columns
    return JobRow(
        job_id,
        type_,
        queue,
        worker,
        app,
        State(state),
        None if due is None else _instant(due),
        _instant(at),
        _instant(first),
        attempt,
        error_type,
        error,
        json.loads(progress) if progress else None,
    )


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
