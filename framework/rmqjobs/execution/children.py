"""One child process, seen from its parent: sends orders, hears answers, takes orders back, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from rmqjobs.execution import frames
from rmqjobs.execution.stacks import in_dump

DUMP_WITHIN, DUMP_LOOKS = 1.0, 20  # seconds that it may take to say where it is
_PROGRAM = str(Path(__file__).with_name("child.py"))
OnFrame = Callable[[frames.Head, bytes], None]


class Child(asyncio.Protocol):
    """A running child.

    Args:
        modules: What it imports before it says that it is up.
        on_frame: Called with each of its frames.
        on_end: Called once, when nothing more can come from it.
    """

    def __init__(self, modules: Iterable[str], on_frame: OnFrame, on_end: Callable[[], None]) -> None:
        self._modules, self._on_frame, self._on_end = modules, on_frame, on_end
        self._unpacker = frames.Unpacker()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._descriptors = ExitStack()
        self._permits, self._grants = self._pipe()
        self._their_signs, self._signs = self._pipe()
        self._dumps, self._their_dumps = self._pipe()
        os.set_blocking(self._permits, False)
        os.set_blocking(self._dumps, False)
        self._unsent: list[bytes] = []
        self._ungranted: list[bytes] = []
        self._killed = False

    async def start(self) -> None:
        """Starts the process; it takes orders at once, and reads them when it is up.

        Raises:
            OSError: The system cannot start it.
        """
        ours, theirs = socket.socketpair()
        inherited = (theirs.fileno(), self._permits, self._their_signs, self._their_dumps)
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "rmqjobs.execution.child", *map(str, inherited), *self._modules),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=inherited,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            self._descriptors.close()
            raise
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        self._watcher = asyncio.create_task(self._watch(self._process))

    @property
    def pid(self) -> int:
        """Id of the process; 0 before it is started."""
        return self._process.pid if self._process else 0

    def send(self, number: int, frame: bytes) -> None:
        """Gives it an order; numbers ascend. All orders from one turn of the event loop go in one write."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(frame)
        self._ungranted.append(frames.PERMIT.pack(number))

    def take_back(self) -> int | None:
        """The number of an order that it has not begun, and now never will; None when it has begun all."""
        if self._unsent:
            self._flush()
        try:
            data = os.read(self._permits, frames.PERMIT.size)
        except OSError:  # nothing there, or closed
            return None
        return int(frames.PERMIT.unpack(data)[0]) if data else None

    def sign(self) -> None:
        """Tells it that this process is still alive."""
        with contextlib.suppress(OSError):
            os.write(self._signs, b".")

    async def stack(self) -> list[str]:
        """Where its main thread is; it must be up. The answer comes from a signal handler, whatever the handler does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, frames.DUMP)
        text = b""
        for _ in range(DUMP_LOOKS):
            await asyncio.sleep(DUMP_WITHIN / DUMP_LOOKS)
            with contextlib.suppress(BlockingIOError, OSError):
                text += os.read(self._dumps, 2**16)
            if text.rpartition(b"Current thread")[2].count(b"\n") > 1:
                break
        return in_dump(text.decode(errors="replace"), _PROGRAM)

    def kill(self) -> None:
        """Ends it and everything it has started, even when it is dead already: it leads a session of its own."""
        if not self._killed and self._process is not None:
            self._killed = True  # once, and soon after its death: later the number may be somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """Waits for its end, and returns how it ended."""
        if self._process is None or self._watcher is None:
            return "was never started"
        code = await self._process.wait()
        await self._watcher
        if self._transport is not None:
            self._transport.close()
        self._descriptors.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = transport  # type: ignore[assignment] # it is a stream's

    def data_received(self, data: bytes) -> None:
        """Part of its frames has arrived."""
        for head, body in self._unpacker.feed(data):
            self._on_frame(head, body)

    def connection_lost(self, _error: Exception | None) -> None:
        """It closed its socket, so whatever is left of it cannot answer."""
        self.kill()
        self._on_end()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """When it dies, kills what it has started: another process of its group may hold its socket open."""
        await process.wait()
        self.kill()

    def _flush(self) -> None:
        if self._transport is not None and not self._killed:
            os.write(self._grants, b"".join(self._ungranted))
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._ungranted.clear()

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        self._descriptors.callback(os.close, reading)
        self._descriptors.callback(os.close, writing)
        return reading, writing
