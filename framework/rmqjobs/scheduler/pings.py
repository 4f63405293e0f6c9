"""Calls the ping URLs of schedules, in the manner of healthchecks services; never holds up a tick or the shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rmqjobs.wire.scheduling import Status

log = logging.getLogger("rmqjobs.scheduler")

TIMEOUT = 10.0  # seconds for all of one call, however slowly it is answered
TRIES = 3
AT_ONCE = 16
PER_HOST = 2  # one service that hangs does not hold up the others
MOST_WAITING = 1_000  # with more, the service has long been gone, and old pings are worth nothing
_SUFFIXES: dict[Status, str] = {"started": "/start", "done": "", "dead": "/fail"}
_SERVER_ERRORS = 500


class Pinger:
    """Sends pings in the background, several at once, those of one schedule in order."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[tuple[str, str]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._of_host: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_HOST))

    def ping(self, schedule: str, url: str, status: Status, text: str = "") -> None:
        """Has `url` called, with `/start` or `/fail` appended to its path, and the text as body."""
        line = self._lines.get(schedule)
        if line is None:
            line = self._lines[schedule] = deque()
            task = asyncio.create_task(self._send(schedule, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(line) < MOST_WAITING:
            line.append((_with_suffix(url, _SUFFIXES[status]), text))
        else:
            log.warning("ping left out: too many wait", extra={"schedule": schedule, "status": status})

    async def close(self, grace: float = 2.0) -> None:
        """Waits a moment for what is under way, then gives up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, schedule: str, line: deque[tuple[str, str]]) -> None:
        import httpx2  # noqa: PLC0415 - only where a schedule has a ping URL

        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client:
                while line:
                    url, text = line.popleft()
                    async with self._of_host[urlsplit(url).hostname or ""], self._slots:
                        await self._try(client, schedule, url, text)
        finally:
            del self._lines[schedule]

    async def _try(self, client: Any, schedule: str, url: str, text: str) -> None:
        """Tries a few times; the path of such a URL is a secret, so the log has only the host."""
        about = {"schedule": schedule, "host": urlsplit(url).hostname}
        for number in range(1, TRIES + 1):
            try:
                async with asyncio.timeout(TIMEOUT):
                    answer = await client.post(url, content=text.encode())
            except Exception as error:  # noqa: BLE001 - whatever a service does, it costs only this ping
                log.warning("ping failed", extra={**about, "try": number, "because": type(error).__name__})
            else:
                if answer.is_success:
                    return
                log.warning("ping refused", extra={**about, "try": number, "because": f"it answered {answer.status_code}"})
                if answer.status_code < _SERVER_ERRORS:  # asking again will not help
                    return
            if number < TRIES:
                await asyncio.sleep(number)


def _with_suffix(url: str, suffix: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix)) if suffix else url
