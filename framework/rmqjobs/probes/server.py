"""The HTTP server behind the probes; imported only where a port is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Info, make_wsgi_app
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from rmqjobs.probes import Collector


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a slow reader holds up neither the others nor the shutdown
    block_on_close = False


class _Quiet(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
        """Logs nothing: a line for each scrape helps nobody."""


def listen(host: str, port: int, answer: Callable[..., Any]) -> WSGIServer:
    """A server that does not serve yet; raises `OSError` when the address is not available."""
    return make_server(host, port, answer, server_class=_Server, handler_class=_Quiet)


def metrics_app(role: str, collectors: Sequence[Collector]) -> Callable[..., Any]:
    """The WSGI application of `/metrics`."""
    registry = CollectorRegistry()
    Info("rmqjobs_build", "What runs here", registry=registry).info({"version": version("rmqjobs"), "role": role})
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return make_wsgi_app(registry)
