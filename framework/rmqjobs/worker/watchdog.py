"""Watches the event loop from a thread, and names a handler that blocks it: that holds up all others and the heartbeat."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import CodeType, FrameType

from rmqjobs.job import Handler

log = logging.getLogger("rmqjobs.worker")

LIMIT = 1.0  # seconds without a beat
_BEAT = 0.25
RECENT = 20  # beats


class Watchdog:
    """Names what blocks the loop, once each time.

    Args:
        handlers: Their code is looked for on the loop's stack.
        warn: Called from the watching thread with the blocker's name, the line it is at, and the seconds so far.
    """

    def __init__(self, handlers: Iterable[Handler], warn: Callable[[str, str, float], None]) -> None:
        self._names: dict[CodeType, str] = {
            function.__code__: handler.name
            for handler in handlers
            if hasattr(function := inspect.unwrap(handler.function), "__code__")
        }
        self._warn = warn
        self._beat_at = time.monotonic()
        self._loop_thread = 0
        self._ended = threading.Event()
        self.worst = 0.0  # seconds, since the last time somebody asked
        self._latest = deque([0.0], maxlen=RECENT)

    async def run(self) -> None:
        """Beats until cancelled, while a thread watches the beats."""
        self._loop_thread = threading.get_ident()
        self._beat_at = time.monotonic()
        thread = threading.Thread(target=self._watch, name="rmqjobs-watchdog", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(_BEAT)
                now = time.monotonic()
                late = now - self._beat_at - _BEAT
                self.worst = max(self.worst, late)
                self._latest.append(late)
                self._beat_at = now
        finally:
            self._ended.set()

    def take_worst(self) -> float:
        """The longest time the loop was late, since the last call."""
        worst, self.worst = self.worst, 0.0
        return worst

    @property
    def recent_lag(self) -> float:
        """The longest time in seconds that the loop was late, in the last five seconds."""
        return max(self._latest)

    def _watch(self) -> None:
        said_of = 0.0
        while not self._ended.wait(_BEAT):
            beat_at = self._beat_at
            silent = time.monotonic() - beat_at - _BEAT
            if silent < LIMIT or said_of == beat_at:
                continue
            said_of = beat_at
            name, line = self._culprit(sys._current_frames().get(self._loop_thread))  # noqa: SLF001 - the documented way
            self._warn(name, line, silent)

    def _culprit(self, frame: FrameType | None) -> tuple[str, str]:
        """The handler on the stack, and the line that it is at; without one, an empty name and the innermost line."""
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
        while frame is not None:
            if frame.f_code in self._names:
                return self._names[frame.f_code], f"{frame.f_code.co_filename}:{frame.f_lineno}"
            frame = frame.f_back
        return "", line
