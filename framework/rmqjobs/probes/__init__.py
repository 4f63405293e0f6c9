"""`/metrics`, `/livez` and `/readyz` over HTTP, from a thread of their own: they still answer when the event loop hangs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, Self

from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import Settings

log = logging.getLogger("rmqjobs.probes")

HANGS_AFTER = 10.0  # seconds without a beat of the event loop
_BEAT = 1.0
_TEXT = [("Content-Type", "text/plain; charset=utf-8")]
_Respond = Callable[[str, list[tuple[str, str]]], object]


class Collector(Protocol):
    """Anything that has metrics to show."""

    def collect(self) -> Iterable[Any]:
        """Metric families of prometheus-client."""


def cumulative(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Counts per bucket as Prometheus wants them: each includes all lower buckets."""
    total, found = 0.0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found


class Probes:
    """The server; does nothing unless the setting `metrics_port` opens a port.

    Args:
        settings: Has the address and the port.
        role: Role of the process, for `rmqjobs_build_info`.
        collectors: What is shown at `/metrics`.
        trouble: Gives why this process is not ready, for `/readyz`; empty when it is.
    """

    def __init__(self, settings: Settings, *, role: str, collectors: Sequence[Collector], trouble: Callable[[], str]) -> None:
        self._settings, self._role, self._collectors, self._trouble = settings, role, collectors, trouble
        self._beat_at = time.monotonic()
        self._server: Any = None
        self._beating: asyncio.Task[None] | None = None
        self.port: int | None = None

    async def __aenter__(self) -> Self:
        if self._settings.metrics_port is None:
            return self
        from rmqjobs.probes import server  # noqa: PLC0415 - most workers open no port

        self._metrics = server.metrics_app(self._role, self._collectors)
        host, port = self._settings.metrics_host, self._settings.metrics_port
        try:
            self._server = server.listen(host, port, self._answer)
        except OSError as error:
            raise ConfigurationError("metrics_port", f"{host}:{port} cannot be opened: {error}", "Choose another one") from None
        self.port = self._server.server_port
        self._beating = asyncio.create_task(self._beat())
        threading.Thread(target=self._server.serve_forever, name="rmqjobs-probes", daemon=True).start()
        log.info("probes", extra={"address": f"{host}:{self.port}", "paths": "/metrics /livez /readyz"})
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()

    async def _beat(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(_BEAT)

    def _answer(self, request: dict[str, Any], respond: _Respond) -> Iterable[bytes]:
        path = request["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(request, respond)
            return answer
        if path not in ("/livez", "/readyz"):
            respond("404 Not Found", _TEXT)
            return [b"there are /metrics, /livez and /readyz\n"]
        silent = time.monotonic() - self._beat_at
        problem = f"the event loop has not moved for {silent:.0f} s" if silent > HANGS_AFTER else ""
        if path == "/readyz":
            problem = problem or self._trouble()
        respond("503 Service Unavailable" if problem else "200 OK", _TEXT)
        return [f"{problem or 'ok'}\n".encode()]
