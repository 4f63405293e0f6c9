"""The plugin contract: signatures and docstrings only. Floor 3.

Implement a hook with `@rmqjobs.hookimpl`. Hooks return data or observe; only the framework acts. A misspelt hook is refused
at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from rmqjobs.job import Handler, Job, Payload
from rmqjobs.plugin import PROJECT
from rmqjobs.retry import Verdict

if TYPE_CHECKING:
    from rmqjobs.schedule import Schedule

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def rmqjobs_handlers() -> Iterable[Handler]:  # type: ignore[empty-body]
    """Returns the plugin's handlers. A `Plugin` object does this by itself."""


@hookspec
def rmqjobs_schedules() -> Iterable[Schedule]:  # type: ignore[empty-body]
    """Returns the plugin's schedules. A `Plugin` object does this by itself."""


@hookspec
def rmqjobs_commands() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Returns extra commands for the `rmqjobs` command line: name to function."""


@hookspec
def rmqjobs_before_job(job: Job, payload: Payload) -> None:
    """Called in the worker before each run. Exceptions count as the handler's own: `Reject` and `Snooze` work here too."""


@hookspec
def rmqjobs_after_job(job: Job, error: BaseException | None) -> None:
    """Called in the worker after each run, with the error if there was one. Exceptions are logged and ignored."""


@hookspec
def rmqjobs_verdict(job: Job, verdict: Verdict) -> None:
    """Called when the verdict is decided, before it is carried out. Exceptions are logged and ignored."""
