"""What the buttons of the dashboard do: forms that are posted, done as the API does it, and answered with the page again."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from rmqjobs.deadletters.review import Order, Outcome, Review
from rmqjobs.deadletters.selection import Selection
from rmqjobs.web import jobs as jobs_api
from rmqjobs.web import queues as queues_api
from rmqjobs.web import schedules as schedules_api
from rmqjobs.web import workers as workers_api
from rmqjobs.web.jobs import Because
from rmqjobs.web.pages import failures_of
from rmqjobs.web.queues import Pause
from rmqjobs.web.rendering import templates, theme_of
from rmqjobs.web.session import COOKIE, LASTS, cookie_of, is_right
from rmqjobs.web.site import TheSite, Who

router = APIRouter(include_in_schema=False)

SEE_OTHER = 303


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a posted form."""
    return {name: values[-1] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}


Form = Annotated[dict[str, str], Depends(form_of)]


@router.post("/jobs/{job_id}/cancel")
async def cancel(job_id: str, form: Form, site: TheSite, by: Who) -> RedirectResponse:
    """Cancels a job."""
    done = await jobs_api.cancel_job(job_id, _why(form), site, by)
    return _back(f"/jobs/{quote(job_id, safe='')}", f"It was {done['was']}, and is cancelled.")


@router.post("/queues/{queue}/{verb}")
async def pause_or_resume(queue: str, verb: Literal["pause", "resume"], form: Form, site: TheSite, by: Who) -> RedirectResponse:
    """Pauses a queue, or resumes it."""
    if verb == "pause":
        await queues_api.pause_queue(queue, Pause(because=_why(form).because, seconds=None), site, by)
    else:
        await queues_api.resume_queue(queue, _why(form), site, by)
    return _back("/queues", f"{queue} is {verb}d.")


@router.post("/workers/{worker}/{verb}")
async def tell_worker(
    worker: str, verb: Literal["drain", "resume", "stop"], form: Form, site: TheSite, by: Who
) -> RedirectResponse:
    """Drains a worker, has it take jobs again, or stops it."""
    await workers_api.tell(worker, verb, _why(form), site, by)
    words = {"drain": "takes no more jobs", "resume": "takes jobs again", "stop": "stops"}
    return _back("/workers", f"{worker} {words[verb]}.")


@router.post("/schedules/{name}/{verb}")
async def tell_schedule(
    name: str, verb: Literal["pause", "resume", "run"], form: Form, site: TheSite, by: Who
) -> RedirectResponse:
    """Pauses a schedule, resumes it, or runs it now."""
    found = await schedules_api.tell(name, verb, _why(form), site, by)
    said = f"Published {found['job_id']}." if verb == "run" else f"{name} is {verb}d."
    return _back("/schedules", said)


@router.post("/failures/jobs/{job_id}/{verb}")
async def act_on_one(
    request: Request, job_id: str, verb: Literal["replay", "drop"], form: Form, site: TheSite, by: Who
) -> RedirectResponse:
    """Replays or drops one dead letter."""
    letter = await failures_of(request).letter(job_id, by)
    queues = [letter.queue] if letter else []
    outcome = await _act(request, site, by, verb, queues, Selection(ids=(job_id,), whole=True), Order(1, _why(form).because))
    return _back("/failures", _told(outcome, verb))


@router.post("/failures/{key}/{verb}")
async def act_on_group(
    request: Request, key: str, verb: Literal["replay", "drop"], form: Form, site: TheSite, by: Who, limit: int | None = None
) -> RedirectResponse:
    """Replays or drops the dead letters of one cause, as many as there were at the last look."""
    group = await failures_of(request).group(key, by)
    if group is None:
        return _back("/failures", "No dead letter has this cause any more.")
    order = Order(min(limit or group.count, group.count), _why(form).because)
    outcome = await _act(request, site, by, verb, sorted(group.queues), group.selection, order)
    return _back("/failures" if limit is None else f"/failures/{quote(key, safe='')}", _told(outcome, verb))


@router.get("/sign-in", response_class=HTMLResponse)
async def sign_in_page(request: Request) -> HTMLResponse:
    """Asks for the token."""
    return HTMLResponse(templates.get_template("sign_in.html").render(theme=theme_of(request), wrong=False))


@router.post("/sign-in", response_model=None)
async def sign_in(request: Request, form: Form, site: TheSite) -> HTMLResponse | RedirectResponse:
    """Gives the browser its cookie."""
    token = site.settings.web_token
    if token is not None and not is_right(form.get("token", ""), token):
        content = templates.get_template("sign_in.html").render(theme=theme_of(request), wrong=True)
        return HTMLResponse(content, status_code=401)
    answer = RedirectResponse("/", SEE_OTHER)
    if token is not None:
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie_of(token), max_age=LASTS, httponly=True, samesite="strict", secure=secure)
    return answer


async def _act(
    request: Request, site: TheSite, by: str, verb: str, queues: list[str], selection: Selection, order: Order
) -> Outcome:
    """Acts on dead letters of these queues, on no more than the order says in all."""
    whole, left = Outcome(), order.limit
    async with site.operator(by) as at_work:
        review = Review(at_work.desk, site.settings, by=by)
        for queue in queues:
            if not left:
                break
            act = review.replay if verb == "replay" else review.drop
            outcome = await act(queue, selection, Order(left, order.because))
            whole.done += outcome.done
            whole.failed += outcome.failed
            left -= len(outcome.done) + len(outcome.failed)
        await at_work.record_action(verb, queue=", ".join(queues), because=order.because, jobs=len(whole.done))
    failures_of(request).forget()
    return whole


def _told(outcome: Outcome, verb: str) -> str:
    done = {"replay": "Replayed", "drop": "Dropped"}[verb]
    if not outcome.done and not outcome.failed:
        return "Nothing was done: it was gone."
    failed = f", {len(outcome.failed):,} failed: {outcome.failed[0][1]}" if outcome.failed else ""
    kept = " They can be restored for 30 days: rmqjobs dlq restore." if verb == "drop" else ""
    return f"{done} {len(outcome.done):,}{failed}.{kept}"


def _why(form: dict[str, str]) -> Because:
    return Because(because=form.get("because", "")[:500])


def _back(path: str, said: str) -> RedirectResponse:
    return RedirectResponse(f"{path}?{urlencode({'said': said})}", SEE_OTHER)
