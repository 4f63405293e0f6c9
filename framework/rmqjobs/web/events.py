"""What happens now, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from rmqjobs.web.site import TheSite
from rmqjobs.wire.events import as_record

router = APIRouter(prefix="/api", tags=["events"])


@router.get("/events", response_class=EventSourceResponse)
async def events(
    site: TheSite,
    job: Annotated[str, Query(description="Only records of jobs whose id begins like this")] = "",
    last_event_id: Annotated[int | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Records of the journal as they come: `records` with a list of them, or `missed` when all has to be asked for anew.

    A client that comes back with `Last-Event-ID` hears what it missed meanwhile.
    """
    async for heard in site.listeners.listen(last_event_id, job):
        if heard.events is None:
            yield ServerSentEvent(event="missed", id=str(heard.offset), data={})
        else:
            yield ServerSentEvent(event="records", id=str(heard.offset), data=[as_record(event) for event in heard.events])
