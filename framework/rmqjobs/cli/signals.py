"""Signals of the running roles: the first asks a process to stop, the second ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("rmqjobs.signals")

ENDED_NOW = 137
PARENT_PIPE = "RMQJOBS_PARENT_PIPE"  # for a worker: the descriptor of a pipe that is closed when its parent ends
# One Ctrl-C or one `systemctl stop` may reach a process twice: directly, and through the parent that passes it on.
SAME_WITHIN = 0.2


def stop_by_signal(last_words: str, last_deed: Callable[[], None] = lambda: None) -> asyncio.Event:
    """An event that the first SIGTERM or Ctrl-C sets; the second logs the last words, does the last deed and ends the process.

    The second works even when a handler blocks the event loop, because it does not go through the loop.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    first_at: float | None = None

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal first_at
        now = time.monotonic()
        if first_at is None:
            first_at = now
            loop.call_soon_threadsafe(stop.set)
        elif now - first_at > SAME_WITHIN:
            log.warning(last_words)
            last_deed()
            os._exit(ENDED_NOW)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def stop_with_parent(stop: asyncio.Event, descriptor: int) -> None:
    """Sets the event when the other end of this pipe is closed: the parent that held it is gone."""
    loop = asyncio.get_running_loop()

    def on_end() -> None:
        loop.remove_reader(descriptor)
        log.warning("the supervising process is gone: draining")
        stop.set()

    os.set_inheritable(descriptor, False)
    loop.add_reader(descriptor, on_end)
