"""rmqjobs: background jobs on RabbitMQ, with handlers as plugins.

The public names. Each is imported from its module on first use, so `import rmqjobs` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmqjobs.errors import Reject, Retry, RmqJobsError, Snooze
    from rmqjobs.job import Job, Payload
    from rmqjobs.plugin import Plugin, hookimpl
    from rmqjobs.publisher import AsyncPublisher, Publisher
    from rmqjobs.retry import RetryPolicy
    from rmqjobs.settings import Settings

_HOMES = {
    "AsyncPublisher": "publisher",
    "Job": "job",
    "Payload": "job",
    "Plugin": "plugin",
    "Publisher": "publisher",
    "Reject": "errors",
    "Retry": "errors",
    "RetryPolicy": "retry",
    "RmqJobsError": "errors",
    "Settings": "settings",
    "Snooze": "errors",
    "hookimpl": "plugin",
}

__all__ = [
    "AsyncPublisher",
    "Job",
    "Payload",
    "Plugin",
    "Publisher",
    "Reject",
    "Retry",
    "RetryPolicy",
    "RmqJobsError",
    "Settings",
    "Snooze",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rmqjobs' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when something is used

    return getattr(import_module(f"rmqjobs.{_HOMES[name]}"), name)
