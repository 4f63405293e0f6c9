"""The application: its routes, its guard, and how errors are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

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
from rmqjobs.web import events, jobs, queues, schedules, workers
from rmqjobs.web.guard import Guard
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


def application(site: Site, known_queues: Sequence[str]) -> FastAPI:
    """The application of a site.

    Args:
        site: What it has.
        known_queues: Work queues of installed plugins.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with site.open():
            app.state.site, app.state.queues = site, list(known_queues)
            yield

    app = FastAPI(
        title="rmqjobs",
        version=version("rmqjobs"),
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its pages load their scripts from elsewhere
        redoc_url=None,
    )
    for each in (jobs, queues, workers, schedules, events):
        app.include_router(each.router)
    app.add_api_route("/livez", _alive, include_in_schema=False)
    app.add_api_route("/readyz", _ready, include_in_schema=False)
    app.add_exception_handler(RmqJobsError, _explained)
    app.add_middleware(Guard, token=site.settings.web_token)
    return app


async def _alive() -> PlainTextResponse:
    return PlainTextResponse("ok\n")


async def _ready(request: Request) -> PlainTextResponse:
    trouble = request.app.state.site.trouble
    return PlainTextResponse(f"{trouble or 'ok'}\n", status_code=503 if trouble else 200)


async def _explained(_request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"code": getattr(error, "code", ""), "detail": str(error)}, status_code=status)
