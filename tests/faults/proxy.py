"""A small TCP proxy that a network's faults can be made with: cut, reset, half-open, slow, refusing.

It runs an event loop on a thread of its own; its methods may be called from anywhere, also between event loops.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

_CHUNK = 64 * 1024
_ABORTIVE = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    swallow: bool = False
    pumps: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """Listens on a port of its own and passes everything on to another one of this machine: of several, to each in turn."""

    def __init__(self, *ports: int) -> None:
        self._targets = list(ports)
        self._delay = 0.0
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.admit()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.refuse()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._pairs)

    def admit(self) -> None:
        """Takes connections, at the same port as before."""
        self._call(self._listen())

    def refuse(self) -> None:
        """Takes no new connections: as a host that is down."""
        self._call(self._stop_listening())

    def cut(self) -> None:
        """Closes all connections properly."""
        self._call(self._end(abortive=False))

    def reset(self) -> None:
        """Ends all connections with a reset."""
        self._call(self._end(abortive=True))

    def swallow(self) -> None:
        """Half-open: the connections that are there now stay, and nothing comes through them, in no direction, for ever."""
        self._call(self._swallow())

    def slow(self, delay: float) -> None:
        """Every piece of data, in every direction, takes so many seconds; 0 ends it."""
        self._delay = delay

    # -- on the loop

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        for port in self._next_targets():
            with contextlib.suppress(OSError):
                from_server, server = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            client.transport.abort()
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        pair.pumps = [
            asyncio.create_task(self._pump(pair, reader, server)),
            asyncio.create_task(self._pump(pair, from_server, client)),
        ]

    def _next_targets(self) -> list[int]:
        self._targets.append(self._targets.pop(0))
        return list(self._targets)

    async def _pump(self, pair: _Pair, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if not pair.swallow:
                    target.write(data)
                    await target.drain()
        if not pair.swallow:
            self._close(pair)

    async def _end(self, *, abortive: bool) -> None:
        for pair in list(self._pairs):
            if abortive:
                for writer in (pair.client, pair.server):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
            self._close(pair)

    async def _swallow(self) -> None:
        for pair in self._pairs:
            pair.swallow = True

    def _close(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for writer in (pair.client, pair.server):
            writer.transport.abort()
        for pump in pair.pumps:
            pump.cancel()
