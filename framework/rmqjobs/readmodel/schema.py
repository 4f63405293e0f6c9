"""The tables, and how a file of them is opened."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

log = logging.getLogger("rmqjobs.readmodel")

VERSION = 1  # another one is another file: there are no migrations
MEMORY = ":memory:"

# `place` puts a job's records in order, see `lifecycle.place`. A column that has a place of its own belongs to the latest
# record that says something about it. Lists are in the order of `first`, which never changes.
_TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, queue TEXT NOT NULL, worker TEXT NOT NULL, app TEXT NOT NULL,
    state TEXT NOT NULL, due INTEGER, at INTEGER NOT NULL, first INTEGER NOT NULL, attempt INTEGER NOT NULL,
    error_type TEXT NOT NULL, error TEXT NOT NULL, progress TEXT NOT NULL,
    place TEXT NOT NULL, run_place TEXT NOT NULL, error_place TEXT NOT NULL, progress_place TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX jobs_first ON jobs (first, id);
CREATE INDEX jobs_state ON jobs (state, first, id);
CREATE INDEX jobs_type ON jobs (type, first, id);
CREATE INDEX jobs_type_state ON jobs (type, state, first, id);
CREATE INDEX jobs_queue ON jobs (queue, first, id);
CREATE INDEX jobs_queue_state ON jobs (queue, state, first, id);
CREATE INDEX jobs_worker ON jobs (worker, first, id) WHERE worker != '';
CREATE INDEX jobs_error ON jobs (error_type, first, id) WHERE error_type != '';
CREATE INDEX jobs_due ON jobs (due) WHERE due IS NOT NULL;

CREATE TABLE records (
    job TEXT NOT NULL, place TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, type TEXT NOT NULL, queue TEXT NOT NULL,
    attempt INTEGER NOT NULL, source TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (job, place)
) WITHOUT ROWID;

CREATE TABLE counts (state TEXT, type TEXT, queue TEXT, jobs INTEGER NOT NULL, PRIMARY KEY (state, type, queue)) WITHOUT ROWID;

CREATE TABLE rates (
    minute INTEGER, type TEXT, kind TEXT, jobs INTEGER NOT NULL, microseconds INTEGER NOT NULL, PRIMARY KEY (minute, type, kind)
) WITHOUT ROWID;

CREATE TABLE ticks (
    schedule TEXT NOT NULL, place TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, job TEXT NOT NULL,
    source TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (schedule, place)
) WITHOUT ROWID;
CREATE TABLE workers (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, at INTEGER NOT NULL, place TEXT NOT NULL, data TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE actions (
    place TEXT PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, action TEXT NOT NULL, data TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX actions_at ON actions (at);
CREATE TABLE followed (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL, digest BLOB NOT NULL);
"""


def open_file(path: Path | str) -> sqlite3.Connection:
    """The model in this file, for its one writer. A file that is broken, or of another version, is set aside and made anew.

    Args:
        path: The file; `MEMORY` for one that lasts as long as the connection.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if path == MEMORY or isinstance(error, sqlite3.OperationalError):
            raise OSError(f"{path}: {error}") from None
        aside = set_aside(Path(path))
        log.warning("the read model is made anew", extra={"because": str(error), "the_former_is": str(aside)})
        return _opened(path)


def set_aside(path: Path) -> Path:
    """Renames a file that cannot be used, and what SQLite keeps beside it; returns its new name."""
    aside = path.with_name(path.name + ".aside")
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).replace(aside.with_name(aside.name + end))
    return aside


def connect(path: Path | str, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection; a reader sees what the writer has committed, and is never held up by it."""
    uri = f"{Path(path).absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    target = path if path == MEMORY else uri
    connection = sqlite3.connect(target, uri=path != MEMORY, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA mmap_size = 268435456")
    connection.execute("PRAGMA cache_size = -32000")
    return connection


def _opened(path: Path | str) -> sqlite3.Connection:
    connection = connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")  # what a power cut breaks is made anew
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        else:
            _check(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, version: int) -> None:
    if version != VERSION:
        raise sqlite3.DatabaseError(f"it has version {version}, and this program knows {VERSION}")
    connection.execute("SELECT next FROM followed").fetchall()
