"""What happened to each numbered job: a file that every process of a run maps into its memory. Standard library only.

Layout: one byte per job, how often it ran; then 8 bytes per job, when it was published; then 8 bytes per job, when it last
started. Times are seconds since 1970 as little-endian doubles; 0 means never. Processes of other languages write the same.
"""

from __future__ import annotations

import mmap
import struct
import time
from array import array
from pathlib import Path

_TIME = struct.Struct("<d")


class Ledger:
    """The ledger of a run.

    Args:
        path: Its file.
        size: Number of jobs; 0 opens one that exists.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        if size:
            path.write_bytes(bytes(17 * size))
        self.path, self.size = path, path.stat().st_size // 17
        self._beginning = path.with_suffix(".beginning")
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)

    def published(self, n: int, at: float | None = None) -> None:
        """Notes that job `n` is about to be published, or was at that time."""
        _TIME.pack_into(self._bytes, self.size + 8 * n, time.time() if at is None else at)

    def started(self, n: int) -> None:
        """Notes that job `n` runs."""
        self._bytes[n] += 1
        _TIME.pack_into(self._bytes, 9 * self.size + 8 * n, time.time())

    def began(self) -> None:
        """Notes that a worker's command begins now."""
        self._beginning.write_text(repr(time.time()))

    def beginning(self) -> float:
        """When the last worker's command began; 0 where its program does not say."""
        return float(self._beginning.read_text()) if self._beginning.exists() else 0.0

    def runs(self) -> bytes:
        """How often each ran."""
        return self._bytes[: self.size]

    def done(self) -> int:
        """How many jobs have run."""
        return self.size - self.runs().count(0)

    def publish_times(self) -> array[float]:
        """When each was published."""
        return self._times(self.size)

    def start_times(self) -> array[float]:
        """When each last started."""
        return self._times(9 * self.size)

    def _times(self, offset: int) -> array[float]:
        times = array("d")
        times.frombytes(self._bytes[offset : offset + 8 * self.size])
        return times
