"""The application: its routes, its guard, and how errors are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    InvalidFilter,
    NoScheduler,
    PermissionMissing,
    PublishError,
    ReviewInProgress,
    RmqJobsError,
    ScheduleError,
)
from rmqjobs.job import Handler
from rmqjobs.web import deeds, events, jobs, pages, queues, schedules, workers
from rmqjobs.web.failures import Failures
from rmqjobs.web.guard import Guard
from rmqjobs.web.rendering import page
from rmqjobs.web.site import Site

_STATUS: tuple[tuple[type[RmqJobsError], int], ...] = (
    (InvalidFilter, 400),
    (ConfigurationError, 400),
    (ScheduleError, 422),
    (PermissionMissing, 403),
    (AuthenticationFailed, 403),
    (ReviewInProgress, 409),
    (BrokerUnavailable, 503),
    (NoScheduler, 503),
    (PublishError, 503),
)


def application(site: Site, handlers: Sequence[Handler] = ()) -> FastAPI:
    """The application of a site.

    Args:
        site: What it has.
        handlers: Handlers of installed plugins, which tell the work queues.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with site.open():
            app.state.site, app.state.handlers = site, tuple(handlers)
            app.state.queues = sorted({handler.queue for handler in handlers})
            app.state.failures = Failures(site, app.state.queues)
            yield

    app = FastAPI(
        title="rmqjobs",
        version=version("rmqjobs"),
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its pages load their scripts from elsewhere
        redoc_url=None,
    )
    for each in (jobs, queues, workers, schedules, events, pages, deeds):
        app.include_router(each.router)
    app.mount("/static", StaticFiles(packages=[("rmqjobs.web", "static")]))
    app.add_api_route("/livez", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_exception_handler(RmqJobsError, _explained)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Guard, token=site.settings.web_token)
    return app


async def _alive() -> PlainTextResponse:
    return PlainTextResponse("ok\n")


async def _ready(request: Request) -> PlainTextResponse:
    trouble = request.app.state.site.trouble
    return PlainTextResponse(f"{trouble or 'ok'}\n", status_code=503 if trouble else 200)


async def _explained(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if _is_page(request):
        return await page(request, "error.html", status=status, title="That cannot be done now.", detail=str(error))
    return JSONResponse({"code": getattr(error, "code", ""), "detail": str(error)}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as it is registered
    if _is_page(request):
        title = "There is no such thing." if error.status_code == 404 else "That cannot be done."
        return await page(request, "error.html", status=error.status_code, title=title, detail=error.detail)
    return JSONResponse({"detail": error.detail}, status_code=error.status_code)


def _is_page(request: Request) -> bool:
    return not request.url.path.startswith(("/api/", "/livez", "/readyz", "/static/"))
