"""Templates, and how values are written in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import humanize
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from rmqjobs.lifecycle import State
from rmqjobs.web.session import THEMES
from rmqjobs.web.site import Site

PLACES = (
    ("/", "Overview"),
    ("/failures", "Failures"),
    ("/jobs", "Jobs"),
    ("/queues", "Queues"),
    ("/schedules", "Schedules"),
    ("/workers", "Workers"),
    ("/activity", "Activity"),
    ("/health", "Health"),
)
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_DASH = "\N{EN DASH}"


async def page(request: Request, template: str, *, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    """A page of the dashboard.

    Args:
        request: What was asked.
        template: Its file.
        here: Which place it belongs to.
        status: Of the answer.
        values: For the template.
    """
    site: Site = request.app.state.site
    counts = await site.ask(lambda queries: queries.counts())
    numbers = {"/failures": counts[State.DEAD]}
    common: dict[str, Any] = {
        "here": here,
        "places": [(path, label, numbers.get(path)) for path, label in PLACES],
        "broker": str(site.settings.broker.endpoints[0]),
        "prefix": site.settings.prefix,
        "trouble": site.trouble,
        "self_url": f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        "flash": request.query_params.get("said", "")[:300],
        "theme": theme_of(request),
        "filter": "",
    }
    return HTMLResponse(templates.get_template(template).render(common | values), status_code=status)


def theme_of(request: Request) -> str:
    """Light or dark, where somebody has chosen."""
    chosen = request.cookies.get("rmqjobs_theme", "")
    return chosen if chosen in THEMES else ""


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:,}"


def _count(value: int | None, noun: str) -> str:
    return f"{_number(value)} {noun}{'' if value == 1 else 's'}"


def _ago(at: datetime | None) -> str:
    return _DASH if at is None else f"{_brief(datetime.now(UTC) - at)} ago"


def _ahead(at: datetime) -> str:
    left = at - datetime.now(UTC)
    return "now" if left <= timedelta(0) else f"in {_brief(left)}"


def _brief(span: timedelta) -> str:
    """`12s`, `46m`, `3h`, `9d`."""
    seconds = max(span.total_seconds(), 0)
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds >= 2 * length), _UNITS[-1])
    return f"{seconds // length:.0f}{unit}"


def _clock(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _exact(at: datetime) -> str:
    local = at.astimezone()
    today = local.date() == datetime.now().astimezone().date()
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03}" if today else f"{local:%b %d %H:%M:%S}"


def _duration(seconds: float | None) -> str:
    return _DASH if seconds is None else humanize.precisedelta(timedelta(seconds=round(seconds)), minimum_unit="seconds")


def _short(job_id: str, most: int = 36) -> str:
    return job_id if len(job_id) <= most else f"{job_id[: most - 1]}…"


def _line(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return _short(first, 200)


_FILTERS: Mapping[str, Any] = {
    "number": _number,
    "count": _count,
    "ago": _ago,
    "ahead": _ahead,
    "clock": _clock,
    "exact": _exact,
    "duration": _duration,
    "short": _short,
    "line": _line,
    "instant": lambda text: datetime.fromisoformat(text) if text else None,
    "rate": lambda value: _DASH if value is None else f"{value:,.1f}/s",
    "bytes": lambda value: _DASH if value is None else humanize.naturalsize(value),
    "milliseconds": lambda seconds: _DASH if seconds is None else f"{seconds * 1000:,.0f} ms",
    "pairs": lambda values: ", ".join(f"{name} {value}" for name, value in (values or {}).items()) or _DASH,
}


class _Known(StrictUndefined):
    """A name that a page forgets is an error; a field that a beat or an action does not have is a dash."""


templates = Environment(
    loader=PackageLoader("rmqjobs.web"), autoescape=select_autoescape(), undefined=_Known, trim_blocks=True, lstrip_blocks=True
)
templates.filters.update(_FILTERS)
