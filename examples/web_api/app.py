"""An API that answers 202 at once while the job runs elsewhere. Run it: `uvicorn app:app --app-dir examples/web_api`.

It needs the payloads of the video plugin, but not its handlers, no ffmpeg and no running worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from rmqjobs import AsyncPublisher
from rmqjobs.errors import BrokerError, InvalidJob, PublishError
from rmqjobs_video.payloads import TranscodeVideo


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One publisher for the life of the application."""
    async with AsyncPublisher(app_id="video-api") as jobs:
        app.state.jobs = jobs
        yield


app = FastAPI(title="Video API", lifespan=lifespan)


@app.post("/videos", status_code=202)
async def upload(video: TranscodeVideo, request: Request, response: Response) -> dict[str, str]:
    """Accepts the job once RabbitMQ has it; the id is also where to ask for it later."""
    job_id = await request.app.state.jobs.publish(video, correlation_id=request.headers.get("x-request-id"))
    response.headers["Location"] = f"/jobs/{job_id}"
    return {"job": job_id}


@app.get("/jobs/{job_id}")
async def look(job_id: str, request: Request) -> dict[str, object]:
    """Where a job is, from the journal: the `Location` of the 202."""
    life = await request.app.state.jobs.job(job_id).life()
    if life is None:  # it waits, and nobody has written a record yet
        return {"job": job_id, "state": "unknown"}
    progress = next((record.data for record in reversed(life.records) if record.kind == "progress"), None)
    return {"job": job_id, "state": life.state(datetime.now(UTC)), "attempts": life.attempts, "progress": progress}


@app.exception_handler(InvalidJob)
async def impossible(_: Request, error: InvalidJob) -> JSONResponse:
    """The job can never be published: that is the caller's mistake."""
    return JSONResponse({"detail": str(error)}, status_code=422)


@app.exception_handler(PublishError)
@app.exception_handler(BrokerError)
async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """The job is not known to be in RabbitMQ: the answer must not be 202."""
    detail = {"detail": "jobs cannot be accepted now, try again", "code": getattr(error, "code", "")}
    return JSONResponse(detail, status_code=503, headers={"Retry-After": "5"})
