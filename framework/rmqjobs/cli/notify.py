"""Tells a service manager how this process is: the sd_notify protocol of systemd (`Type=notify`, `WatchdogSec=`).

It sends datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names; without that, it sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta

SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
LOOK_EVERY = 0.1
READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def address_of(name: str) -> str:
    """The address as sockets take it; a name that begins with `@` is not a file."""
    return f"\0{name[1:]}" if name.startswith("@") else name


class Notifier:
    """The connection to the service manager.

    Args:
        environ: Says how to reach it, and how often it wants a sign of life.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = address_of(environ.get(SOCKET, ""))
        meant = environ.get(WATCHDOG_PID, str(os.getpid())) == str(os.getpid())
        microseconds = environ.get(WATCHDOG_USEC, "") if meant else ""
        self.watchdog = timedelta(microseconds=int(microseconds)) if microseconds.isdigit() else None

    def say(self, *lines: str) -> None:
        """Sends these lines; a manager that is gone is no reason to stop."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)  # a manager that reads nothing must not hold us up
            line.sendto("\n".join(lines).encode(), self._address)

    @contextlib.asynccontextmanager
    async def alive(self, is_ready: Callable[[], bool]) -> AsyncIterator[None]:
        """Says when this process is ready for the first time, and gives signs of life, twice in each interval asked for."""
        tasks = [asyncio.create_task(self._say_ready(is_ready)), asyncio.create_task(self._beat())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _say_ready(self, is_ready: Callable[[], bool]) -> None:
        while not is_ready():
            await asyncio.sleep(LOOK_EVERY)
        self.say(READY)

    async def _beat(self) -> None:
        while self.watchdog:
            self.say(ALIVE)
            await asyncio.sleep(self.watchdog.total_seconds() / 2)
