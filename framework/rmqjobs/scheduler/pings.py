"""Calls the ping URLs of schedules, as healthchecks-style services take them; never holds up a tick."""

from __future__ import annotations

import asyncio
import logging
import urllib.error
import urllib.request
from urllib.parse import urlsplit, urlunsplit

from rmqjobs.wire.scheduling import Status

log = logging.getLogger("rmqjobs.scheduler")

TIMEOUT = 10.0
TRIES = 3
AT_ONCE = 8
MOST_WAITING = 1_000  # beyond that the service is gone for long, and old pings are worth nothing
_SUFFIXES: dict[Status, str] = {"started": "/start", "done": "", "dead": "/fail"}


class Pinger:
    """Sends pings in the background, several at once, each schedule's in their order."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Queue[tuple[str, str]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def ping(self, schedule: str, url: str, status: Status, text: str = "") -> None:
        """Will call `url`, with `/start` or `/fail` behind its path, and the text as body."""
        line = self._lines.get(schedule)
        if line is None:
            line = self._lines[schedule] = asyncio.Queue(MOST_WAITING)
            task = asyncio.create_task(self._send(schedule, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            line.put_nowait((_with_suffix(url, _SUFFIXES[status]), text))
        except asyncio.QueueFull:
            log.warning("ping left out: too many wait", extra={"schedule": schedule, "status": status})

    async def close(self, grace: float = 2.0) -> None:
        """Waits a moment for what is under way, then gives up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, schedule: str, line: asyncio.Queue[tuple[str, str]]) -> None:
        while not line.empty():
            url, text = line.get_nowait()
            async with self._slots:
                await self._try(schedule, url, text)
        del self._lines[schedule]

    async def _try(self, schedule: str, url: str, text: str) -> None:
        host = urlsplit(url).hostname  # the path of such URLs is a secret
        for number in range(1, TRIES + 1):
            try:
                await asyncio.to_thread(_post, url, text)
            except urllib.error.HTTPError as error:
                error.close()
                log.warning("ping refused", extra={"schedule": schedule, "host": host, "because": f"it answered {error.code}"})
                if error.code < 500:  # noqa: PLR2004 - asking again will not help
                    return
            except (OSError, ValueError) as error:
                log.warning("ping failed", extra={"schedule": schedule, "host": host, "try": number, "because": str(error)})
            else:
                return
            if number < TRIES:
                await asyncio.sleep(number)


def _with_suffix(url: str, suffix: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix)) if suffix else url


def _post(url: str, text: str) -> None:
    request = urllib.request.Request(url, data=text.encode(), method="POST")  # noqa: S310 - checked to be http or https
    urllib.request.urlopen(request, timeout=TIMEOUT).close()  # noqa: S310
