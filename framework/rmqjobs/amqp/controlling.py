"""Hears what operators say, and says it: the control stream, on pika.

The stream only grows, so now and then whoever says something also repeats all that still counts. Each message tells from which
offset on a reader finds everything; the last message of the stream is enough to know where to begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rmqjobs.amqp.connection import Channel, Connection, resolve
from rmqjobs.amqp.outlet import Outlet
from rmqjobs.control import LASTING, Standing, Word
from rmqjobs.errors import BrokerError, BrokerUnavailable
from rmqjobs.topology import Names
from rmqjobs.wire import control as wire
from rmqjobs.wire.jobs import Message

log = logging.getLogger("rmqjobs.control")

REPEAT_AFTER = 1_000  # messages that a reader may have to read besides what still counts
REPEAT_WORDS = 10_000  # and words in them, or twice as many as still count
PREFETCH = 1_000  # a stream consumer must have one
READ_WITHIN = 5.0  # seconds; on RabbitMQ 3.10 a stream may be down for a minute after a crash
SPEAK_WITHIN = 20.0  # for those who have something to say, and nothing to do without
TURNS, TURN = 10, 0.005  # nothing more is there when it has answered so often since, with so many seconds between
REPLY_TO = "amq.rabbitmq.reply-to"

Hear = Callable[[Sequence[Word], str | None], None]


def _ignore(_words: Sequence[Word], _reply_to: str | None) -> None: ...


class ControlFeed:
    """Follows the control stream on one connection after another.

    Args:
        names: Has the name of the stream.
        hear: Called with the words of each message, and with where to answer; also with those that were said before.
        within: Seconds that reading what was said may take.
    """

    def __init__(self, names: Names, hear: Hear = _ignore, *, within: float = READ_WITHIN) -> None:
        self._names, self._hear, self._within = names, hear, within
        self._channel: Channel | None = None
        self.standing = Standing()  # what counts, as far as it was read to the end
        self._reading = self.standing
        self.start = 0  # where a reader has to begin, by the last message
        self.next = 0  # the offset after the last message that was read
        self._words = 0  # that a reader has to read
        self._arrived = asyncio.Event()

    @property
    def is_heard(self) -> bool:
        """Whether what is said now arrives here."""
        return self._channel is not None and self._channel.is_open

    @property
    def is_long(self) -> bool:
        """Whether a reader has to read much more than what still counts."""
        words = max(REPEAT_WORDS, 2 * len(self.standing.cancels))
        return self.next - self.start > REPEAT_AFTER or self._words > words

    async def follow(self, connection: Connection) -> None:
        """Reads what was said, and hears from then on what is said while this connection lives.

        What was known before still counts until everything is read: a stream that is down does not end a pause.

        Raises:
            BrokerError: The stream cannot be read.
        """
        if self.is_heard and self._channel is not None and self._channel.raw.connection is connection.raw:
            return
        self._reading, self.start, self.next, self._words = Standing(), 0, 0, 0  # the stream may have been made anew
        try:
            async with asyncio.timeout(self._within):
                await self._read(connection)
        except TimeoutError:
            await self._let_go()
            raise BrokerUnavailable(f"{self._names.control!r} cannot be read: it does not answer") from None
        self.standing = self._reading

    async def _read(self, connection: Connection) -> None:
        last = await last_of(connection, self._names.control)
        channel = await connection.channel()
        await channel.call("basic_qos", prefetch_count=PREFETCH)
        self._channel = channel
        # Also when nothing is there: from offset 0 on, the first word is not missed.
        await _consume(channel, self._names.control, last[1] if last else 0, self._on_message)
        while last is not None and self.next <= last[0]:
            await self._more(channel)
        read = -1
        while read != self.next:
            read = self.next
            await _turns(channel, lambda: self.next != read)  # noqa: B023 - it is asked at once

    async def _let_go(self) -> None:
        """Gives up a channel on which nothing comes; what still does would be for nobody."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(BrokerError):
                await channel.close()

    async def _more(self, channel: Channel) -> None:
        """Waits until something has arrived."""
        self._arrived.clear()
        arrival = asyncio.create_task(self._arrived.wait())
        await asyncio.wait((arrival, channel.closed), return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()
        if channel.closed.done():
            raise channel.closed.result()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        place = _offset(properties)
        words, start = list(wire.decode(body, place)), wire.start_of(properties.headers)
        self._words = len(words) + (self._words if start <= self.start else len(self._reading.cancels))
        self.next, self.start = place + 1, max(self.start, start)
        for word in words:
            if word.verb in LASTING:
                self._reading.take(word)
        self._hear(words, properties.reply_to)
        self._arrived.set()


class Speaker:
    """Says things to all workers, also to those that start later.

    Args:
        connection: The connection.
        names: Has the name of the stream.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection, self._names = connection, names
        self._feed = ControlFeed(names, within=SPEAK_WITHIN)
        self._repeating = asyncio.Lock()

    async def standing(self) -> Standing:
        """What counts now.

        Raises:
            BrokerError: The stream cannot be read.
        """
        await self._feed.follow(self._connection)
        return self._feed.standing

    async def say(self, words: Sequence[Word]) -> None:
        """Says lasting words; they are safe when this returns.

        Raises:
            PublishError: They are not known to be in RabbitMQ.
            BrokerError: The stream cannot be read or written.
        """
        await self.standing()
        await self._publish(wire.messages(self._names, words, start=self._feed.start))
        async with self._repeating:
            if self._feed.is_long:
                await self._repeat()

    async def ask(self, word: Word, within: timedelta, *, answers: int | None = None) -> list[bytes]:
        """Says something to running workers, and returns what they answer.

        Args:
            word: What to say.
            within: How long to wait for answers.
            answers: Return as soon as there are this many.
        """
        await self.standing()
        channel = await self._connection.channel()
        found: list[bytes] = []
        enough = asyncio.Event()

        def on_answer(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
            found.append(body)
            if len(found) == answers:
                enough.set()

        await channel.call("basic_consume", queue=REPLY_TO, on_message_callback=on_answer, auto_ack=True)
        outlet = Outlet(self._connection, channel)  # answers come to the channel that asked
        await outlet.open()
        failures = await outlet.publish(wire.messages(self._names, [word], start=self._feed.start, reply_to=REPLY_TO))
        if failures:
            raise failures[0]
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait((waiting, channel.closed), timeout=within.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await channel.close()
        return found

    async def _repeat(self) -> None:
        """Repeats all that still counts, so that a reader may begin here."""
        feed, words, new_start = self._feed, self._feed.standing.words(datetime.now(UTC)), self._feed.next
        *others, last = wire.repetition(self._names, words, start=feed.start, new_start=new_start)
        await self._publish(others)
        await self._publish([last])
        feed.start = max(feed.start, new_start)

    async def _publish(self, messages: Sequence[Message]) -> None:
        outlet = Outlet(self._connection, await self._connection.channel())
        await outlet.open()
        failures = await outlet.publish(messages)
        await outlet.channel.close()
        if failures:
            raise next(iter(failures.values()))


async def last_of(connection: Connection, stream: str) -> tuple[int, int] | None:
    """Offset of the first message of a stream's last chunk, and where it says a reader begins; None when nothing is there.

    Raises:
        BrokerError: The stream cannot be read.
    """
    channel = await connection.channel()
    await channel.call("basic_qos", prefetch_count=1)
    found: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    def on_message(_channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        offset = _offset(properties)
        resolve(found, (offset, min(wire.start_of(properties.headers), offset)))

    await _consume(channel, stream, "last", on_message)
    await _turns(channel, found.done)
    await channel.close()
    return found.result() if found.done() else None


async def _consume(channel: Channel, stream: str, offset: object, on_message: Callable[..., None]) -> None:
    arguments = {"x-stream-offset": offset}
    await channel.call("basic_consume", queue=stream, on_message_callback=on_message, arguments=arguments)


async def _turns(channel: Channel, is_enough: Callable[[], bool]) -> None:
    """Lets the broker answer on this channel several times: what a stream has comes before most of these answers.

    A silence measured by a clock would take a busy broker's for an empty stream.
    """
    for _ in range(TURNS):
        if is_enough():
            break
        await asyncio.sleep(TURN)
        await channel.call("basic_qos", prefetch_count=PREFETCH)


def _offset(properties: Any) -> int:
    return int(properties.headers["x-stream-offset"])
