"""Jobs: lists, one job's life, and cancelling."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from rmqjobs.events import Event
from rmqjobs.lifecycle import State, due_at
from rmqjobs.readmodel.filters import JobFilter, parse
from rmqjobs.readmodel.queries import MOST, PAGE, JobRow, Queries
from rmqjobs.tracking import Life
from rmqjobs.tracking.processes import lost_since
from rmqjobs.tracking.story import outlook, story
from rmqjobs.web.site import TheSite, Who
from rmqjobs.wire.events import as_record

router = APIRouter(prefix="/api", tags=["jobs"])


class Jobs(BaseModel):
    """A page of jobs, those that were published last first."""

    jobs: list[JobRow]
    after: str | None = Field(description="Ask with this for the next page; null when this is the last one")
    count: int = Field(description="How many jobs match")
    is_more: bool = Field(description="Whether more match than were counted")
    searched: int | None = Field(description="With a text in the filter: how many of the newest jobs were looked through")
    reaches_back_to: datetime | None = Field(description="When the oldest job that is known here was published")


class Moment(BaseModel):
    """One line of a job's story."""

    at: datetime
    text: str


class OneJob(BaseModel):
    """Everything that is known of a job."""

    id: str
    type: str
    queue: str
    state: State
    attempts: int
    records: list[dict[str, Any]] = Field(description="Its records in the journal, in order, with results and logs")
    story: list[Moment]
    outlook: str = Field(description="What comes next, in words; empty when nothing does")
    worker_lost_since: datetime | None = Field(
        description="When the worker that runs it gave its last sign of life, if too long ago"
    )


class Because(BaseModel):
    """Why somebody acts."""

    because: str = Field("", max_length=500)


@router.get("/jobs")
async def list_jobs(
    site: TheSite,
    filter: Annotated[str, Query(description="type: state: queue: worker: error: since: before: or texts")] = "",  # noqa: A002
    limit: Annotated[int, Query(ge=1, le=MOST)] = PAGE,
    after: str | None = None,
) -> Jobs:
    """Jobs that match a filter."""
    which = parse(filter, datetime.now(UTC))

    def find(queries: Queries) -> Jobs:
        page, count = queries.jobs(which, limit=limit, after=after), queries.count(which)
        return Jobs(
            jobs=page.jobs,
            after=page.after,
            count=count.jobs,
            is_more=count.is_more,
            searched=page.searched,
            reaches_back_to=queries.reaches_back_to,
        )

    return await site.ask(find)


@router.get("/jobs/{job_id}")
async def show_job(job_id: str, site: TheSite) -> OneJob:
    """One job, by its whole id or a unique beginning of it."""
    life, beats = await site.ask(lambda queries: _life(queries, job_id, site))
    now = datetime.now(UTC)
    lost = lost_since(beats, life, now, site.settings.beat_interval)
    return OneJob(
        id=life.id,
        type=life.type,
        queue=life.queue,
        state=life.state(now),
        attempts=life.attempts,
        records=[as_record(record) for record in life.records],
        story=[Moment(**asdict(moment)) for moment in story(life)],
        outlook=outlook(life, now, lost),
        worker_lost_since=lost,
    )


@router.post("/jobs/{job_id}/cancel", status_code=202)
async def cancel_job(job_id: str, why: Because, site: TheSite, by: Who) -> dict[str, str]:
    """Cancels a job that waits, is delayed or runs; one that nobody has seen yet is cancelled if it comes."""
    records = await site.ask(lambda queries: queries.records(job_id))
    life = Life(job_id, records)
    if records and (state := life.state(datetime.now(UTC))).is_end:
        raise HTTPException(409, f"it is {state}")
    due = due_at(records[-1]) if records else None
    async with site.operator(by) as at_work:
        await at_work.cancel([(job_id, life.type)], because=why.because, due=due)
    return {"id": job_id, "was": life.state(datetime.now(UTC)) if records else "not seen yet"}


@router.get("/counts")
async def count_jobs(site: TheSite) -> dict[str, Any]:
    """How many jobs are in each state, and of each type in each state."""
    states, types = await site.ask(lambda queries: (queries.counts(), queries.types()))
    return {"states": states, "types": types}


@router.get("/rates")
async def rates(
    site: TheSite,
    since: Annotated[str, Query(description="How long ago, such as 1h or 7d, or an ISO 8601 time")] = "1h",
    type: str | None = None,  # noqa: A002 - the parameter's name
) -> list[dict[str, Any]]:
    """What happened in each minute: kind of record, how many, and the seconds of their runs."""
    start = parse(f'since:"{since}"', datetime.now(UTC)).since or datetime.now(UTC)
    return await site.ask(lambda queries: queries.rates(start, type))


@router.get("/actions")
async def actions(site: TheSite, limit: Annotated[int, Query(ge=1, le=MOST)] = PAGE) -> list[dict[str, Any]]:
    """What operators did to queues, workers and many jobs, the latest first."""
    return await site.ask(lambda queries: queries.actions(limit))


def _life(queries: Queries, beginning: str, site: TheSite) -> tuple[Life, dict[str, Event]]:
    ids = [beginning] if queries.records(beginning) else queries.ids(beginning, 2)
    if not ids:
        known = queries.count(JobFilter()).jobs
        raise HTTPException(404, f"nothing is known of {beginning!r}: {known:,} jobs are. {site.trouble}".strip())
    if len(ids) > 1:
        raise HTTPException(409, f"{beginning!r} is the beginning of several jobs: {', '.join(ids)}, …")
    return Life(ids[0], queries.records(ids[0])), {beat.source: beat for beat in queries.workers()}
