"""The table of uploads, in SQLite, and the folder their files are in. Knows no jobs.

Both are in the folder that the variable `VIDEO_LIBRARY` names, as `uploads.sqlite` and `uploads/`; by default that is
`video-library` in the working directory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

VARIABLE = "VIDEO_LIBRARY"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    name TEXT PRIMARY KEY,                -- of its file
    state TEXT NOT NULL,                  -- uploaded, failed, deleted, missing
    bytes INTEGER NOT NULL,
    changed_at TEXT NOT NULL              -- ISO 8601, UTC: when it got into this state
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Upload:
    """One row."""

    name: str
    bytes: int


class Library:
    """Uploads and their files.

    Args:
        folder: Where it is; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, folder / "uploads"
        self.files.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "uploads.sqlite", timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(_SCHEMA)

    def record(self, name: str, state: str, size: int, at: datetime) -> None:
        """Records an upload, or its new state."""
        self._connection.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET state = excluded.state, bytes = excluded.bytes, changed_at = excluded.changed_at",
            (name, state, size, _text(at)),
        )

    def failed_before(self, instant: datetime) -> list[Upload]:
        """Uploads that failed before an instant, the oldest first."""
        rows = self._connection.execute(
            "SELECT name, bytes FROM uploads WHERE state = 'failed' AND changed_at < ? ORDER BY changed_at, name",
            (_text(instant),),
        )
        return [Upload(*row) for row in rows]

    def delete(self, upload: Upload, at: datetime) -> None:
        """Removes the file, then records that: after a crash between the two, doing it again does no harm.

        Raises:
            ValueError: The name leads out of the folder; nothing is removed.
        """
        path = (self.files / upload.name).resolve()
        if not path.is_relative_to(self.files.resolve()) or path == self.files.resolve():
            raise ValueError(f"upload {upload.name!r} is not in {self.files}")
        path.unlink(missing_ok=True)
        self.record(upload.name, "deleted", upload.bytes, at)

    def sync(self, at: datetime) -> tuple[int, int]:
        """Makes the table fit the folder; returns how many files were new, and how many are missing."""
        present = {path.name: path.stat().st_size for path in self.files.iterdir() if path.is_file()}
        known = dict(self._connection.execute("SELECT name, state FROM uploads"))
        new = [name for name in present if known.get(name) in (None, "missing")]
        gone = [name for name, state in known.items() if state in ("uploaded", "failed") and name not in present]
        for name in new:
            self.record(name, "uploaded", present[name], at)
        for name in gone:
            self.record(name, "missing", 0, at)
        return len(new), len(gone)

    def changes(self, start: datetime, end: datetime) -> dict[str, dict[str, int]]:
        """Number and bytes of uploads by the state they got into after `start` and up to `end`."""
        rows = self._connection.execute(
            "SELECT state, count(*), sum(bytes) FROM uploads"
            " WHERE changed_at > ? AND changed_at <= ? GROUP BY state ORDER BY state",
            (_text(start), _text(end)),
        )
        return {state: {"uploads": count, "bytes": size} for state, count, size in rows}

    def close(self) -> None:
        """Closes the table."""
        self._connection.close()


@contextmanager
def opened() -> Iterator[Library]:
    """The library of this machine."""
    library = Library(Path(os.environ.get(VARIABLE, "video-library")))
    try:
        yield library
    finally:
        library.close()


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds")
