"""An API that answers 202 at once while the job runs elsewhere. Run it: `uvicorn app:app --app-dir examples/web_api`.

It needs the payloads of the video plugin, but not its handlers, no ffmpeg and no running worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse

from rmqjobs import AsyncPublisher
from rmqjobs.errors import BrokerError, InvalidJob, PublishError
from rmqjobs.tracking import Life
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
    return shown(life) if life is not None else {"job": job_id, "state": "unknown"}  # it waits, and no record is written yet


@app.get("/jobs/{job_id}/changes", response_class=EventSourceResponse)
async def watch(job_id: str, request: Request) -> AsyncIterator[dict[str, object]]:
    """The same again and again, as server-sent events, until the job has ended."""
    async with aclosing(request.app.state.jobs.job(job_id).changes()) as lives:
        async for life in lives:
            yield shown(life)
            if life.state(datetime.now(UTC)).is_end:
                return


@app.get("/")
async def page() -> FileResponse:
    """A page that uploads a video and shows how far it is."""
    return FileResponse(Path(__file__).with_name("page.html"))


def shown(life: Life) -> dict[str, object]:
    """What the caller may know of a job."""
    progress = next((record.data for record in reversed(life.records) if record.kind == "progress"), None)
    state = life.state(datetime.now(UTC))
    return {"job": life.id, "state": state, "attempts": life.attempts, "progress": progress, "because": life.because}


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
