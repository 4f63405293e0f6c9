"""The ledger of one system: what was published, started, done and dead, in SQLite. Every system writes it: stdlib only.

A process that is killed with -9 keeps what it wrote: the operating system has it. Only a power cut would lose it.
"""

import os
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

PUBLISHED, STARTED, EFFECT, DEAD = "published", "started", "effect", "dead"
_SCHEMA = "CREATE TABLE entries (n INTEGER, what TEXT, at REAL, pid INTEGER)"


class Ledger:
    """One file that many processes and threads write at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new one, before anybody else opens it: SQLite does not wait for a lock when it changes its journal's mode."""
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_SCHEMA)
        connection.close()
        return cls(path)

    def note(self, what: str, n: int) -> None:
        """One entry about job number `n`, safe when this returns."""
        self._connection().execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (n, what, time.time(), os.getpid()))

    def count(self, what: str, numbers: range) -> Counter[int]:
        """How often this was noted about each of these jobs."""
        query = "SELECT n, count(*) FROM entries WHERE what = ? AND n >= ? AND n < ? GROUP BY n"
        return Counter(dict(self._connection().execute(query, (what, numbers.start, numbers.stop))))

    def times(self, what: str, numbers: range) -> dict[int, float]:
        """When this was first noted about each of these jobs, in seconds since 1970."""
        query = "SELECT n, min(at) FROM entries WHERE what = ? AND n >= ? AND n < ? GROUP BY n"
        return dict(self._connection().execute(query, (what, numbers.start, numbers.stop)))

    def close(self) -> None:
        """Closes this thread's connection."""
        if (found := getattr(self._own, "connection", None)) is not None:
            found[1].close()
            self._own.connection = None

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._own, "connection", None)
        if found is None or found[0] != os.getpid():  # SQLite's connections do not cross a fork
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.execute("PRAGMA synchronous = OFF")
            self._own.connection = found = (os.getpid(), connection)
        return found[1]
