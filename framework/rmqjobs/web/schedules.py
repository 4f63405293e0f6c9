"""Schedules: what the active scheduler says of them, and what happened to them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import JsonValue

from rmqjobs.operations.schedules import ask_scheduler
from rmqjobs.web.jobs import Because
from rmqjobs.web.site import TheSite, Who

router = APIRouter(prefix="/api/schedules", tags=["schedules"])


@router.get("")
async def list_schedules(site: TheSite, by: Who) -> dict[str, Any]:
    """All schedules, who is active and who stands by; 503 when no scheduler answers."""
    return await _ask(site, "list", {}, by)


@router.get("/{name}")
async def show_schedule(name: str, site: TheSite, by: Who) -> dict[str, Any]:
    """One schedule, and what happened to it lately."""
    found = await _ask(site, "show", {"name": name}, by)
    return found | {"history": await site.ask(lambda queries: queries.ticks(name))}


@router.post("/{name}/{verb}")
async def tell(name: str, verb: Literal["pause", "resume", "run"], _why: Because, site: TheSite, by: Who) -> dict[str, Any]:
    """Pauses it, resumes it, or publishes a job of it now."""
    return await _ask(site, verb, {"name": name}, by)


async def _ask(site: TheSite, verb: str, arguments: dict[str, JsonValue], by: str) -> dict[str, Any]:
    answer = await ask_scheduler(site.settings, verb, arguments, by=by)
    if "error" in answer:
        raise HTTPException(404 if answer.get("unknown") else 422, f"{answer['code']} {answer['error']}")
    return {**answer["ok"], "standbys": answer.get("standbys")}
