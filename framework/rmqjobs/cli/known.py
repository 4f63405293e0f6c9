"""What a command knows without being told: who runs it, and which work queues the installed plugins have."""

from __future__ import annotations

import getpass
import os
import socket

from rmqjobs.plugins import load
from rmqjobs.settings import Settings

WHERE_TO_LOOK = "Queues are known from installed plugins, and from the broker's management API where it answers"


def who() -> str:
    """Who runs this command: `user@host`."""
    return f"{_user()}@{socket.gethostname()}"


def work_queues(settings: Settings) -> list[str]:
    """The work queues of the installed plugins."""
    registry = load(settings.plugins, allowed=settings.allowed_plugins)
    return sorted({handler.queue for handler in registry.handlers.values()})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return str(os.getuid())
