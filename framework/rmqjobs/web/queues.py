"""Work queues: what waits where, and pausing, purging, moving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from rmqjobs.operations.queues import move, purge, states
from rmqjobs.readmodel.follower import ignore
from rmqjobs.web.jobs import Because
from rmqjobs.web.site import TheSite, Who

router = APIRouter(prefix="/api/queues", tags=["queues"])


class Pause(Because):
    """How long a pause lasts."""

    seconds: float | None = Field(None, gt=0, description="It ends by itself after this time")


class Purge(Because):
    """What is dropped."""

    confirm: str = Field(description="The queue's name once more")
    limit: int | None = Field(None, ge=1)


class Paused(BaseModel):
    """By whom a queue is paused, and why."""

    at: datetime
    by: str
    because: str
    until: datetime | None


class Queue(BaseModel):
    """A work queue as it is now; what only the management API could tell is null where that does not answer."""

    queue: str
    ready: int = Field(description="Jobs that wait")
    consumers: int = Field(description="Who takes jobs from it")
    dead: int | None = Field(description="Its dead letters")
    running: int | None = Field(description="Jobs that workers hold")
    arriving: float | None = Field(description="Jobs a second that come")
    leaving: float | None = Field(description="Jobs a second that are settled")
    paused: Paused | None


class Move(Because):
    """Where jobs go."""

    to: str
    limit: int | None = Field(None, ge=1)


async def known_queues(request: Request) -> list[str]:
    """The work queues of installed plugins."""
    queues: list[str] = request.app.state.queues
    return queues


Known = Annotated[list[str], Depends(known_queues)]


@router.get("")
async def list_queues(site: TheSite, by: Who, known: Known) -> list[Queue]:
    """All work queues; without the management API, running jobs and rates are null."""
    async with site.operator(by) as at_work:
        return [Queue(**each.record) for each in await states(at_work, known)]


@router.get("/{queue}")
async def show_queue(queue: str, site: TheSite, by: Who) -> Queue:
    """One work queue."""
    async with site.operator(by) as at_work:
        found = [each for each in await states(at_work, [queue]) if each.queue == queue]
    if not found:
        raise HTTPException(404, f"there is no queue {queue!r}")
    return Queue(**found[0].record)


@router.post("/{queue}/pause")
async def pause_queue(queue: str, order: Pause, site: TheSite, by: Who) -> Queue:
    """Has all workers take nothing more from it, also those that start later."""
    await show_queue(queue, site, by)
    until = datetime.now(UTC) + timedelta(seconds=order.seconds) if order.seconds is not None else None
    async with site.operator(by) as at_work:
        await at_work.pause(queue, because=order.because, until=until)
    return await show_queue(queue, site, by)


@router.post("/{queue}/resume")
async def resume_queue(queue: str, order: Because, site: TheSite, by: Who) -> Queue:
    """Ends a pause."""
    await show_queue(queue, site, by)
    async with site.operator(by) as at_work:
        await at_work.resume(queue, because=order.because)
    return await show_queue(queue, site, by)


@router.post("/{queue}/purge")
async def purge_queue(queue: str, order: Purge, site: TheSite, by: Who) -> dict[str, Any]:
    """Drops what waits now; for 30 days it can be restored, as dead letters."""
    if order.confirm != queue:
        raise HTTPException(422, "confirm has to be the queue's name")
    ready = (await show_queue(queue, site, by)).ready
    async with site.operator(by) as at_work:
        done = await purge(at_work, queue, min(ready, order.limit or ready), because=order.because, progress=ignore)
    return {"queue": queue, "done": done}


@router.post("/{queue}/move")
async def move_queue(queue: str, order: Move, site: TheSite, by: Who) -> dict[str, Any]:
    """Moves what waits now to another queue."""
    ready = (await show_queue(queue, site, by)).ready
    limit = min(ready, order.limit or ready)
    async with site.operator(by) as at_work:
        done = await move(at_work, queue, order.to, limit, because=order.because, progress=ignore)
    return {"queue": queue, "to": order.to, "done": done}
