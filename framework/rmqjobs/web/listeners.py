"""Those who listen to what happens now: each gets every record from when it came, or is told that it has missed some."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from rmqjobs.amqp.streams import StreamMessage
from rmqjobs.events import Event
from rmqjobs.wire import events as wire

KEPT = 1_000  # messages, for those who come back
MOST_WAITING = 1_000  # messages that a slow listener may be behind


@dataclass(frozen=True, slots=True)
class Heard:
    """What a listener hears.

    Args:
        offset: The place in the journal, to come back to.
        events: The records; none when some were missed, and everything has to be asked for anew.
    """

    offset: int
    events: list[Event] | None


class Listeners:
    """All of them."""

    def __init__(self) -> None:
        self._kept: deque[StreamMessage] = deque(maxlen=KEPT)
        self._queues: set[asyncio.Queue[StreamMessage]] = set()
        self._behind: set[asyncio.Queue[StreamMessage]] = set()

    def heard(self, messages: list[StreamMessage]) -> None:
        """Tells everybody."""
        self._kept += messages
        for queue in list(self._queues):
            for message in messages:
                if queue.qsize() >= MOST_WAITING:
                    self._behind.add(queue)
                else:
                    queue.put_nowait(message)

    async def listen(self, after: int | None = None, job: str = "") -> AsyncGenerator[Heard, None]:
        """What happens from now on, or from after that offset on.

        Args:
            after: The offset that was heard last.
            job: Only records of this job.
        """
        queue: asyncio.Queue[StreamMessage] = asyncio.Queue()
        self._queues.add(queue)
        try:
            if after is not None:
                missed = [message for message in self._kept if message.offset > after]
                if not self._kept or self._kept[0].offset > after + 1 or self._kept[-1].offset < after:
                    yield Heard(self._kept[-1].offset if self._kept else -1, None)
                    missed = []
                for message in missed:
                    queue.put_nowait(message)
            while True:
                message = await queue.get()
                if queue in self._behind and queue.empty():
                    self._behind.discard(queue)
                    yield Heard(message.offset, None)
                elif events := list(wire.decode(message.body, message.source, about=job)):
                    yield Heard(message.offset, events)
        finally:
            self._queues.discard(queue)
            self._behind.discard(queue)
