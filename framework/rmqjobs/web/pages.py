"""The pages of the dashboard. Each works without script, and shows what the API says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from rmqjobs.control import WHOLE, Verb
from rmqjobs.doctor.checks import Finding, Patient, Severity, examine
from rmqjobs.doctor.facts import gather
from rmqjobs.errors import InvalidFilter, NoScheduler, RmqJobsError
from rmqjobs.events import EventKind
from rmqjobs.lifecycle import State
from rmqjobs.masking import masked
from rmqjobs.topology import build
from rmqjobs.web import jobs as api
from rmqjobs.web.charts import bars
from rmqjobs.web.failures import Failures, payload_of
from rmqjobs.web.queues import Known, list_queues
from rmqjobs.web.rendering import page
from rmqjobs.web.schedules import list_schedules
from rmqjobs.web.site import Site, TheSite, Who
from rmqjobs.web.workers import WITHIN, list_workers
from rmqjobs.wire.values import as_json

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

# What the chart shows: how long, and how long each bar is.
SPANS = {
    "1h": (timedelta(hours=1), timedelta(minutes=1)),
    "24h": (timedelta(hours=24), timedelta(minutes=30)),
    "7d": (timedelta(days=7), timedelta(hours=4)),
}
_STEPS = {"1h": "minute", "24h": "half hour", "7d": "four hours"}
_GIVEN_UP = EventKind.DEAD.value
MOST_FAILING = 8
LIKE_AN_ID = 8  # characters


@router.get("/")
async def overview(request: Request, site: TheSite, span: str = "1h") -> HTMLResponse:
    """How things are, and what is wrong."""
    chosen = span if span in SPANS else "1h"
    length, step = SPANS[chosen]
    counts, types = await site.ask(lambda queries: (queries.counts(), queries.types()))
    start = datetime.now(UTC) - length
    rates = await site.ask(lambda queries: queries.rates(start))
    workers = await list_workers(site)
    failing = Counter({kind: states[State.DEAD] for kind, states in types.items() if State.DEAD in states})
    alive = Counter(each["role"] for each in workers if each["state"] not in ("stopped", "lost"))
    minute = (datetime.now(UTC) - timedelta(minutes=1)).replace(second=0, microsecond=0)  # the last whole one
    latest = Counter({each["kind"]: each["jobs"] for each in rates if each["minute"] == minute})
    return await page(
        request,
        "overview.html",
        here="/",
        counts={state.value: count for state, count in counts.items()},
        dead=counts[State.DEAD],
        per_minute=latest[EventKind.SUCCEEDED.value],
        published_per_minute=latest[EventKind.PUBLISHED.value],
        workers=alive["worker"],
        schedulers=alive["scheduler"],
        problems=_problems(counts, workers),
        failing=failing.most_common(MOST_FAILING),
        chart=bars(_in_steps(rates, start, length, step)),
        spans=SPANS,
        chosen=chosen,
        step=_STEPS[chosen],
    )


@router.get("/jobs", response_model=None)
async def jobs(
    request: Request,
    site: TheSite,
    filter: str = "",  # noqa: A002 - the parameter's name
    after: str | None = None,
) -> HTMLResponse | RedirectResponse:
    """Jobs that match a filter; an id, or a long and unique beginning of one, leads to its job."""
    wrong = ""
    if len(filter) >= LIKE_AN_ID and len(ids := await site.ask(lambda queries: queries.ids(filter, 2))) == 1:
        return RedirectResponse(f"/jobs/{quote(ids[0], safe='')}", 303)
    try:
        found = await api.list_jobs(site, filter=filter, after=after)
    except InvalidFilter as error:
        wrong = str(error)
        found = api.Jobs(jobs=[], after=None, count=0, is_more=False, searched=None, reaches_back_to=None)
    counts = await site.ask(lambda queries: queries.counts())
    shown = {state.value: count for state, count in counts.items()}
    return await page(request, "jobs.html", here="/jobs", page=found, counts=shown, filter=filter, wrong=wrong)


@router.get("/jobs/{job_id}")
async def job(request: Request, job_id: str, site: TheSite) -> HTMLResponse:
    """One job's life."""
    found = await api.show_job(job_id, site)
    latest = {record["kind"]: record.get("data", {}) for record in found.records}
    result = latest.get("succeeded", {}).get("result")
    return await page(
        request,
        "job.html",
        here="/jobs",
        job=found,
        progress=latest.get("progress"),
        result=None if result is None else as_json(masked(result)).decode(),
        records=as_json(masked(found.records), indent=2).decode(),
    )


@router.get("/queues")
async def queues(request: Request, site: TheSite, by: Who, known: Known) -> HTMLResponse:
    """Work queues."""
    found = await list_queues(site, by, known)
    unknown = any(queue.running is None for queue in found)
    return await page(request, "queues.html", here="/queues", queues=found, unknown=unknown)


@router.get("/workers")
async def workers(request: Request, site: TheSite) -> HTMLResponse:
    """Workers and schedulers."""
    found = [{**_BLANK, **each} for each in await list_workers(site)]
    return await page(request, "workers.html", here="/workers", workers=found)


@router.get("/workers/{name}")
async def worker(request: Request, name: str, site: TheSite, by: Who) -> HTMLResponse:
    """One worker, what it runs, and where that is in its code."""
    found = next((each for each in await list_workers(site) if each["worker"] == name), None)
    if found is None:
        raise HTTPException(404, f"nothing has been heard of {name!r}")
    running = found.get("jobs", [])
    if running and found["state"] in ("ready", "draining"):
        async with site.operator(by) as at_work:
            answers = await at_work.ask(Verb.STACKS, f"{name}{WHOLE}", within=WITHIN, answers=1)
        running = answers[0]["jobs"] if answers else running
    shown = [{"stack": [], **each} for each in running]
    return await page(request, "worker.html", here="/workers", worker={**_BLANK, **found}, jobs=shown)


@router.get("/schedules")
async def schedules(request: Request, site: TheSite, by: Who) -> HTMLResponse:
    """Schedules, as the active scheduler has them."""
    found, wrong = None, ""
    try:
        found = await list_schedules(site, by)
    except NoScheduler as error:
        wrong = str(error)
    return await page(request, "schedules.html", here="/schedules", found=found, wrong=wrong)


@router.get("/activity")
async def activity(request: Request, site: TheSite) -> HTMLResponse:
    """What operators did."""
    found = await api.actions(site, limit=200)
    shown = [{"queue": "", "worker": "", "to": "", "because": "", **each} for each in found]
    return await page(request, "activity.html", here="/activity", actions=shown)


@router.get("/failures")
async def failures(request: Request, by: Who) -> HTMLResponse:
    """Dead letters by cause."""
    known = failures_of(request)
    groups = await known.groups(by)
    total = sum(group.count for group in groups)
    return await page(
        request, "failures.html", here="/failures", groups=groups, total=total, wrong=known.problem, looked_at=known.looked_at
    )


@router.get("/failures/jobs/{job_id}")
async def dead_letter(request: Request, job_id: str, by: Who) -> HTMLResponse:
    """One dead letter."""
    letter = await failures_of(request).letter(job_id, by)
    if letter is None:
        raise HTTPException(404, f"{job_id} is not among the dead letters: it may have been replayed or dropped")
    return await page(
        request,
        "dead_letter.html",
        here="/failures",
        letter=letter,
        headers=masked(dict(letter.headers)),
        payload=payload_of(letter),
    )


@router.get("/failures/{key}")
async def failure(request: Request, key: str, by: Who) -> HTMLResponse:
    """One cause, and the dead letters that have it."""
    group = await failures_of(request).group(key, by)
    if group is None:
        raise HTTPException(404, "no dead letter has this cause any more: all were replayed or dropped")
    return await page(request, "failure.html", here="/failures", group=group)


@router.get("/health")
async def health(request: Request, site: TheSite) -> HTMLResponse:
    """What the doctor says."""
    return await page(request, "health.html", here="/health", findings=await _findings(site, request))


def failures_of(request: Request) -> Failures:
    """The dead letters of this server's site."""
    found: Failures = request.app.state.failures
    return found


# What a scheduler's beat does not have.
_BLANK: dict[str, Any] = {
    "running": None, "slots": None, "queues": None, "plugins": None, "paused": None, "loop_lag_seconds": None,
    "memory_bytes": None, "version": "", "started_at": None, "seen_at": None,
}  # fmt: skip


def _problems(counts: dict[State, int], workers: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What to look at first, from what the model knows."""
    found = []
    lost = [each["worker"] for each in workers if each["state"] == "lost"]
    if lost:
        detail = f"{', '.join(lost[:3])} gave no more signs of life; the broker gives their jobs to others"
        found.append(_problem(f"{len(lost)} lost", detail, "rmqjobs workers list", tone="error"))
    waiting = counts[State.QUEUED]
    if waiting and not any(each["role"] == "worker" and each["state"] == "ready" for each in workers):
        found.append(_problem(f"{waiting:,} jobs wait and no worker is ready", "", "rmqjobs worker", tone="error"))
    paused = {queue: why for each in workers if each["state"] == "ready" for queue, why in (each.get("paused") or {}).items()}
    found += [_problem(f"{queue} is paused", why, f"rmqjobs queues resume {queue}") for queue, why in sorted(paused.items())]
    return found


def _problem(text: str, detail: str, mend: str, tone: str = "warning") -> dict[str, str]:
    return {"text": text, "detail": detail, "mend": mend, "tone": tone}


def _in_steps(rates: list[dict[str, Any]], start: datetime, length: timedelta, step: timedelta) -> list[tuple[str, int, int]]:
    """Done and given up in each step of the time."""
    count = int(length / step)
    good, bad = [0] * count, [0] * count
    for each in rates:
        place = min(max(int((each["minute"] - start) / step), 0), count - 1)
        if each["kind"] == EventKind.SUCCEEDED.value:
            good[place] += each["jobs"]
        elif each["kind"] == _GIVEN_UP:
            bad[place] += each["jobs"]
    form = "%H:%M" if length <= timedelta(days=1) else "%b %d"
    return [((start + place * step).astimezone().strftime(form), good[place], bad[place]) for place in range(count)]


async def _findings(site: Site, request: Request) -> list[Finding]:
    handlers = tuple(request.app.state.handlers)
    topology = build(handlers, site.settings.prefix)
    try:
        facts = await gather(site.settings, topology)
    except RmqJobsError as error:
        return [Finding("connection", Severity.ERROR, "the broker cannot be looked at", str(error))]
    return examine(Patient(facts, site.settings, handlers, topology))
