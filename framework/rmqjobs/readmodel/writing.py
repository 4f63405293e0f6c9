"""Writes records into the read model. Any order, and repeats, end in the same rows."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

from rmqjobs.amqp.streams import StreamMessage
from rmqjobs.events import Event, EventKind
from rmqjobs.lifecycle import State, is_about_a_job, place, state_after
from rmqjobs.wire import events as wire
from rmqjobs.wire.values import as_json

MAX_BYTES = 10**9
SHARE = 50  # a fiftieth of the jobs goes at once when there is no more room
KEPT_RATES = timedelta(days=30)
LONGEST_RUN = 10 * 365 * 86_400  # seconds; a record with more is somebody's joke
_ERROR_LENGTH, _NOTE_LENGTH = 300, 100
_ENDINGS = frozenset({EventKind.RETRIED, EventKind.DEAD, EventKind.SKIPPED, EventKind.CANCELLED})
_COUNTED = frozenset(kind.value for kind in EventKind) - {"log", "progress", "started"}
_BEATS = {EventKind.WORKER: "worker", EventKind.SCHEDULER: "scheduler", EventKind.WEB: "web"}

_COLUMNS = (
    "id", "type", "queue", "worker", "app", "state", "due", "at", "first", "attempt", "error_type", "error", "progress",
    "place", "run_place", "error_place", "progress_place",
)  # fmt: skip
# What changes while a job runs; an index on other columns is not touched.
_CHANGING = tuple(name for name in _COLUMNS if name not in ("id", "type", "app", "first"))
_READ_JOBS = f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
_ADD_JOB = f"INSERT INTO jobs VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
_CHANGE_JOB = f"UPDATE jobs SET {', '.join(f'{name} = :{name}' for name in _CHANGING)} WHERE id = :id"
_REPLACE_JOB = _ADD_JOB.replace("INSERT", "INSERT OR REPLACE")
_COUNT = "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs"
_RATE = """
INSERT INTO rates VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, microseconds = microseconds + excluded.microseconds
"""
_ADD_RECORD = "INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_BEAT = """
INSERT INTO workers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    role = iif(excluded.place > place, excluded.role, role), at = iif(excluded.place > place, excluded.at, at),
    data = iif(excluded.place > place, excluded.data, data), place = max(place, excluded.place)
"""


class _Placed(NamedTuple):
    """A record of a job, with its `lifecycle.place` and its time in milliseconds."""

    where: str
    at: int
    event: Event


Counted = tuple[str, str, str]  # state, type and queue of jobs that are counted together
_Record = tuple[str, str, str, int, str, str, int, str, str]


def digest(message: StreamMessage) -> bytes:
    """What tells a message from another one with the same offset: the stream may have been made anew."""
    return blake2b(message.body, digest_size=16).digest()


class Writer:
    """The one writer of a model.

    Args:
        connection: From `schema.open_file`.
        max_bytes: How large the file may become; the oldest jobs go first.
    """

    def __init__(self, connection: sqlite3.Connection, *, max_bytes: int = MAX_BYTES) -> None:
        self._db, self._max_bytes = connection, max_bytes

    @property
    def followed(self) -> tuple[int, bytes] | None:
        """Offset and digest of the last message that is in the model; None when there is none."""
        found = self._db.execute("SELECT next - 1, digest FROM followed").fetchone()
        return None if found is None else (found[0], found[1])

    def take(self, messages: Sequence[StreamMessage]) -> int:
        """Writes what messages tell, all or nothing; returns how many records that were.

        Raises:
            sqlite3.Error: It cannot be written, such as for a full disk; the model is as it was before.
        """
        events = [event for message in messages for event in wire.decode(message.body, message.source)]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._put(events)
            last = messages[-1]
            self._db.execute("INSERT OR REPLACE INTO followed VALUES (1, ?, ?)", (last.offset + 1, digest(last)))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself may have rolled it back
                self._db.execute("ROLLBACK")
            raise
        return len(events)

    def keep(self, now: datetime) -> None:
        """Puts jobs whose time has come among those that wait, and forgets the oldest where there is no more room."""
        self._db.execute("BEGIN IMMEDIATE")
        counts: Counter[Counted] = Counter()
        waiting = "SELECT state, type, queue FROM jobs WHERE due <= ?"
        for state, kind, queue in self._db.execute(waiting, (_milliseconds(now),)).fetchall():
            counts[state, kind, queue] -= 1
            counts[State.QUEUED, kind, queue] += 1
        if counts:
            self._db.execute("UPDATE jobs SET state = 'queued', due = NULL WHERE due <= ?", (_milliseconds(now),))
            self._count(counts)
        self._db.execute("COMMIT")
        while self._bytes() > self._max_bytes and self._forget(now):
            pass

    def _put(self, events: Iterable[Event]) -> None:
        of_jobs: dict[str, list[_Placed]] = {}
        records, ticks, beats, actions = [], [], [], []
        for event in events:
            at, where = _milliseconds(event.at), place(event)
            data = as_json(event.data).decode()
            if event.job and is_about_a_job(event.kind):
                row = (event.job, where, event.kind.value, at, event.type, event.queue, event.attempt, event.source, data)
                records.append(row)
                of_jobs.setdefault(event.job, []).append(_Placed(where, at, event))
            if (schedule := event.data.get("schedule")) is not None:
                ticks.append((str(schedule), where, event.kind.value, at, event.job, event.source, data))
            elif event.kind in _BEATS:
                beats.append((event.source, _BEATS[event.kind], at, where, data))
            elif event.kind is EventKind.ACTED:
                actions.append((where, at, str(event.data.get("by") or ""), str(event.data.get("action") or ""), data))
        self._put_records(records)
        self._put_jobs(of_jobs)
        self._db.executemany("INSERT OR IGNORE INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?)", ticks)
        self._db.executemany(_PUT_BEAT, beats)
        self._db.executemany("INSERT OR IGNORE INTO actions VALUES (?, ?, ?, ?, ?)", actions)

    def _put_records(self, rows: Sequence[_Record]) -> None:
        """Adds records, and counts those that are new by the minute."""
        self._db.execute("SAVEPOINT records")
        if self._db.executemany(_ADD_RECORD, rows).rowcount != len(rows):  # some were there, so look at each
            self._db.execute("ROLLBACK TO records")
            rows = [row for row in rows if self._db.execute(_ADD_RECORD, row).rowcount]
        self._db.execute("RELEASE records")
        rates: dict[tuple[int, str, str], list[int]] = {}
        for _, _, kind, at, job_type, _, _, _, data in rows:
            if kind in _COUNTED:
                rate = rates.setdefault((at // 60_000, job_type, kind), [0, 0])
                rate[0] += 1
                rate[1] += _microseconds(data)
        self._db.executemany(_RATE, [(*key, *rate) for key, rate in rates.items()])

    def _put_jobs(self, of_jobs: Mapping[str, Sequence[_Placed]]) -> None:
        """Merges records into the rows of their jobs."""
        known = {
            row[0]: dict(zip(_COLUMNS, row, strict=True)) for row in self._db.execute(_READ_JOBS, (json.dumps(list(of_jobs)),))
        }
        added, changed, replaced = [], [], []
        counts: Counter[Counted] = Counter()
        for job_id, placed in of_jobs.items():
            row = known.get(job_id)
            before = None if row is None else dict(row)
            if row is None:
                row = {**_EMPTY, "id": job_id, "first": placed[0].at}
            for each in placed:
                _merge(row, each)
            if before == row:
                continue
            if before is None:
                added.append(row)
            elif all(before[name] == row[name] for name in ("type", "app", "first")):
                changed.append(row)
            else:
                replaced.append(row)
            if before is not None:
                counts[before["state"], before["type"], before["queue"]] -= 1
            counts[row["state"], row["type"], row["queue"]] += 1
        self._db.executemany(_ADD_JOB, added)
        self._db.executemany(_CHANGE_JOB, changed)
        self._db.executemany(_REPLACE_JOB, replaced)
        self._count(counts)

    def _count(self, counts: Mapping[Counted, int]) -> None:
        self._db.executemany(_COUNT, [(*key, jobs) for key, jobs in counts.items() if jobs])

    def _bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _forget(self, now: datetime) -> bool:
        """Forgets a share of the jobs, the oldest, ended or not: a model that is full must go on. False when none is left."""
        self._db.execute("BEGIN IMMEDIATE")
        (jobs,) = self._db.execute("SELECT coalesce(sum(jobs), 0) FROM counts").fetchone()
        place = "SELECT first FROM jobs ORDER BY first, id LIMIT 1 OFFSET ?"
        (until,) = self._db.execute(place, (jobs // SHARE,)).fetchone() or (0,)
        gone = "SELECT state, type, queue, -count(*) FROM jobs WHERE first <= ? GROUP BY state, type, queue"
        self._db.executemany(_COUNT, self._db.execute(gone, (until,)).fetchall())
        self._db.execute("DELETE FROM records WHERE job IN (SELECT id FROM jobs WHERE first <= ?)", (until,))
        self._db.execute("DELETE FROM jobs WHERE first <= ?", (until,))
        self._db.execute("DELETE FROM ticks WHERE at <= ?", (until,))
        self._db.execute("DELETE FROM actions WHERE at <= ?", (until,))
        self._db.execute("DELETE FROM rates WHERE minute < ?", (_milliseconds(now - KEPT_RATES) // 60_000,))
        self._db.execute("DELETE FROM counts WHERE jobs = 0")
        self._db.execute("COMMIT")
        return bool(jobs)


def _merge(row: dict[str, Any], placed: _Placed) -> None:
    """Merges a record into its job's row; the order does not matter."""
    where, at, event = placed.where, placed.at, placed.event
    row["first"] = min(row["first"], at)
    row["type"] = max(row["type"], event.type)
    if where > row["place"]:
        state, due = state_after(event)
        row["place"], row["at"], row["state"] = where, at, state.value
        row["due"] = None if due is None else _milliseconds(due)
    if event.queue and where > row["run_place"]:
        row["run_place"], row["queue"], row["worker"], row["attempt"] = where, event.queue, event.source, event.attempt
    data = event.data
    match event.kind:
        case EventKind.PUBLISHED:
            row["app"] = max(row["app"], str(data.get("app") or event.source))
        case EventKind.PROGRESS if where > row["progress_place"]:
            shown: dict[str, Any] = {name: data[name] for name in ("done", "total") if data.get(name) is not None}
            if data.get("note"):
                shown["note"] = str(data["note"])[:_NOTE_LENGTH]
            row.update(progress_place=where, progress=json.dumps(shown))
        case kind if kind in _ENDINGS and where > row["error_place"]:
            error = str(data.get("error") or data.get("reason") or "").strip()
            row.update(error_place=where, error=error[:_ERROR_LENGTH], error_type=_class_of(error))


_EMPTY: dict[str, Any] = {
    "type": "", "queue": "", "worker": "", "app": "", "state": "", "due": None, "at": 0, "attempt": 0, "error_type": "",
    "error": "", "progress": "", "place": "", "run_place": "", "error_place": "", "progress_place": "",
}  # fmt: skip


def _microseconds(data: str) -> int:
    """How long the run took that a record tells of; whole numbers add up to the same in any order."""
    if '"seconds"' not in data:
        return 0
    seconds = json.loads(data).get("seconds")
    return round(seconds * 1_000_000) if isinstance(seconds, int | float) and 0 <= seconds < LONGEST_RUN else 0


def _class_of(error: str) -> str:
    """The name of the exception's class, without its module."""
    return error.partition(":")[0].rpartition(".")[2][:100]


def _milliseconds(at: datetime) -> int:
    return int((at - _EPOCH) / timedelta(milliseconds=1))


_EPOCH = datetime.fromtimestamp(0, UTC)
