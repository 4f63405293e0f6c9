"""Signals of the running roles: the first asks to stop, the second ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

log = logging.getLogger("rmqjobs.signals")

ENDED_NOW = 137


def stop_by_signal(last_words: str) -> asyncio.Event:
    """An event that the first SIGTERM or Ctrl-C sets; the second ends the process, with these words in the log."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            log.warning(last_words)
            os._exit(ENDED_NOW)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
