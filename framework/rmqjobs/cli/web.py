"""`rmqjobs web`: serves the dashboard and the HTTP API until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rmqjobs.cli import logs
from rmqjobs.cli.options import Common
from rmqjobs.cli.progress import reading
from rmqjobs.cli.signals import stop_by_signal
from rmqjobs.errors import ConfigurationError, PluginError
from rmqjobs.job import Handler
from rmqjobs.plugins import load
from rmqjobs.settings import Endpoint, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger("rmqjobs.web")

STOP_WITHIN = 3  # seconds that open streams of events get


def web(*, host: str | None = None, port: int | None = None, model: str | None = None, common: Common | None = None) -> None:
    """Serve the dashboard and the HTTP API. Needs pip install 'rmqjobs[web]'.

    Only this machine can ask, unless there is a token: RMQJOBS_WEB_TOKEN, sent as Authorization: Bearer TOKEN.

    Parameters
    ----------
    host
        The address to listen on, by default 127.0.0.1. Any other one needs a token.
    port
        The port, by default 8088; 0 picks a free one.
    model
        The file of the read model. It is made again from the journal whenever it is missing.
    """
    settings = (common or Common()).settings(web_host=host, web_port=port, web_model=model)
    logs.configure(settings.log_format)
    missing = [name for name in ("fastapi", "jinja2", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigurationError("web", f"{', '.join(missing)} is not installed", "Install it with: pip install 'rmqjobs[web]'")
    from rmqjobs.web.guard import is_loopback  # noqa: PLC0415 - what is not installed everywhere

    if not is_loopback(settings.web_host) and settings.web_token is None:
        hint = "Set RMQJOBS_WEB_TOKEN to a secret of 16 characters or more, or listen on 127.0.0.1"
        raise ConfigurationError("web_host", f"{settings.web_host} is open to others, and no token is set", hint)
    _serve(settings)


def _serve(settings: Settings) -> None:
    from rmqjobs.web.app import application  # noqa: PLC0415 - as above
    from rmqjobs.web.site import Site  # noqa: PLC0415

    try:
        listening = socket.create_server((settings.web_host, settings.web_port))
    except OSError as error:
        where = f"{settings.web_host}:{settings.web_port}"
        raise ConfigurationError("web_port", f"{where} cannot be opened: {error}", "Choose another one") from None
    with listening, reading("read the journal") as move:
        app = application(Site(settings, progress=move), _handlers(settings))
        asyncio.run(_until_told(app, settings, listening))


async def _until_told(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    """Serves until a signal says to stop."""
    import uvicorn  # noqa: PLC0415 - as above

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are ours: its own way ends the process by the signal, as if it had failed

    stop = stop_by_signal("second signal: ending now")
    server = Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=STOP_WITHIN))
    serving = asyncio.create_task(server.serve([listening]))
    host, port = listening.getsockname()[:2]
    guarded = "a token" if settings.web_token else "this machine only"
    log.info("serving", extra={"url": f"http://{Endpoint(host, port)}/", "for": guarded, "broker": str(settings.broker)})
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    log.info("web stopped")


def _handlers(settings: Settings) -> list[Handler]:
    """Of installed plugins; a server without any knows queues from the management API alone."""
    try:
        return list(load(settings.plugins, allowed=settings.allowed_plugins).handlers.values())
    except PluginError as error:
        log.warning("continuing without plugins", extra={"because": str(error)})
        return []
