"""An event loop that always runs, as in an asyncio application: heartbeats and reconnecting go on between two publishes."""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What it gives, for a caller without an event loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _event_loop()).result()


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop
