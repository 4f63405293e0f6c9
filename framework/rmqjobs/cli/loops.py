"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

from rmqjobs.errors import ConfigurationError

NewLoop = Callable[[], asyncio.AbstractEventLoop]
UVLOOP = "uvloop"


def loop_factory(event_loop: str) -> NewLoop:
    """The function that makes the loop.

    Args:
        event_loop: `asyncio`, `uvloop`, or `auto`: uvloop where it is installed.

    Raises:
        ConfigurationError: uvloop is wanted, and not installed.
    """
    is_there = find_spec(UVLOOP) is not None
    if event_loop == UVLOOP and not is_there:
        raise ConfigurationError("event_loop", "uvloop is not installed", "Install it with: pip install 'rmqjobs[fast]'")
    if event_loop == "asyncio" or not is_there:
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - it may not be there

    return uvloop.new_event_loop
