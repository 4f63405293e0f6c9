"""Workers and schedulers: how they are, and what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, HTTPException

from rmqjobs.control import WHOLE, Verb
from rmqjobs.tracking.processes import of_beat
from rmqjobs.web.jobs import Because
from rmqjobs.web.site import TheSite, Who

router = APIRouter(prefix="/api/workers", tags=["workers"])

WITHIN = timedelta(seconds=2)
_VERBS = {"drain": Verb.DRAIN, "resume": Verb.UNDRAIN, "stop": Verb.STOP}


@router.get("")
async def list_workers(site: TheSite) -> list[dict[str, Any]]:
    """How each was at its last beat, some seconds ago; `lost` when the next ones have not come."""
    beats = await site.ask(lambda queries: queries.workers())
    now = datetime.now(UTC)
    return [{"role": beat.kind.value, **of_beat(beat, now, site.settings.beat_interval)} for beat in beats]


@router.get("/{worker}/stacks")
async def stacks(worker: str, site: TheSite, by: Who) -> dict[str, Any]:
    """Where each job that it runs is in its code, now."""
    async with site.operator(by) as at_work:
        return _the_one(await at_work.ask(Verb.STACKS, f"{worker}{WHOLE}", within=WITHIN, answers=1), worker)


@router.post("/{worker}/{verb}")
async def tell(worker: str, verb: Literal["drain", "resume", "stop"], why: Because, site: TheSite, by: Who) -> dict[str, Any]:
    """Has it take no more jobs, take jobs again, or end as SIGTERM does."""
    async with site.operator(by) as at_work:
        found = await at_work.ask(_VERBS[verb], f"{worker}{WHOLE}", because=why.because, within=WITHIN, answers=1)
    return _the_one(found, worker)


def _the_one(found: list[dict[str, Any]], worker: str) -> dict[str, Any]:
    if not found:
        raise HTTPException(404, f"no worker of the name {worker!r} answers within {WITHIN.total_seconds():g} s")
    return found[0]
