"""The program of a child process: takes orders from its parent, runs one job at a time, and answers each.

Started as `python -m rmqjobs.execution.child SOCKET PERMITS SIGNS DUMPS MODULE …`: four descriptors, and what to import
before it says that it is up. The parent may take back an order that waits here: each order has a permit, a number in a pipe,
and whoever reads that owns the order. When the parent is gone, or silent for longer than the lease of a singleton that runs,
this process ends itself and all it has started: another worker is about to run that job.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import importlib
import inspect
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping
from functools import cache, partial
from threading import Lock, Thread
from typing import Any

from pydantic import JsonValue

from rmqjobs.execution import frames
from rmqjobs.execution.outcome import checked, told
from rmqjobs.job import Job
from rmqjobs.wire.values import as_json

_RECEIVE = 1 << 18


class _Child:
    def __init__(self, connection: socket.socket, permits: int, signs: int) -> None:
        self._connection, self._permits, self._signs = connection, permits, signs
        os.set_blocking(permits, False)
        self._permit = 0  # the last one that was read
        self._pid = os.getpid()
        self._sending = Lock()  # a handler may report from threads of its own
        self._lease: float | None = None  # seconds for which the job that runs now may go on without a sign from the parent
        self._wake, self._woken = os.pipe()
        self._loop = asyncio.Runner()

    def serve(self) -> None:
        Thread(target=self._watch, daemon=True).start()
        self._send(frames.pack({"up": True}))
        unpacker = frames.Unpacker()
        while data := self._receive():
            for head, body in unpacker.feed(data):
                if self._may_run(head["number"]):
                    self._answer(head, body)
        _end()

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_RECEIVE)
        except OSError:
            return b""

    def _may_run(self, number: int) -> bool:
        """Whether the order is still ours; permits come in the order of their numbers."""
        while self._permit < number:
            try:
                (self._permit,) = frames.PERMIT.unpack(os.read(self._permits, frames.PERMIT.size))
            except BlockingIOError:
                return False
        return self._permit == number

    def _answer(self, head: frames.Head, body: bytes) -> None:
        if head["lease"] is not None:
            self._take_lease(head["lease"])
        result = b""
        try:
            # A context of its own: no job sees a variable that another one has set.
            result = contextvars.copy_context().run(self._run, head, body)
            answer: frames.Head = {}
        except BaseException as error:  # noqa: BLE001 - every end of a handler is a value here
            answer = frames.error_head(told(error))
        if self._lease is not None:
            self._take_lease(None)
        self._send(frames.pack({**answer, "number": head["number"], "peak_bytes": _peak_bytes()}, result))

    def _run(self, head: frames.Head, body: bytes) -> bytes:
        arguments: list[Any] = [_load(head["payload"]).model_validate_json(body)]
        if "job" in head:
            arguments.append(frames.job_of(head["job"], partial(self._report, head["number"])))
        result = _load(head["function"])(*arguments)
        if inspect.isawaitable(result):
            result = self._loop.run(_alone(result), context=contextvars.copy_context())
        result = checked(result)
        return b"" if result is None else as_json(result)

    def _report(self, number: int, _job: Job, kind: str, data: Mapping[str, JsonValue]) -> None:
        self._send(frames.pack_report(number, kind, data))

    def _send(self, frame: bytes) -> None:
        if os.getpid() != self._pid:  # the handler forked and its copy came back: only the original answers
            os._exit(1)
        with self._sending, contextlib.suppress(BrokenPipeError):  # the watching thread ends us
            self._connection.sendall(frame)

    # -- the parent

    def _take_lease(self, lease: float | None) -> None:
        self._lease = lease
        os.write(self._woken, b"!")

    def _watch(self) -> None:
        """Ends everything when the parent is gone, or has not been heard from for the length of a lease."""
        poll = select.poll()
        poll.register(self._connection, 0)  # its end is reported in any case
        poll.register(self._signs, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            lease = self._lease
            happened = dict(poll.poll(None if lease is None else lease * 1000))
            if self._connection.fileno() in happened or (not happened and lease is not None and lease == self._lease):
                _end()
            for descriptor in happened:
                os.read(descriptor, 4096)


async def _alone(awaitable: Any) -> object:
    """The result of an async handler; what it leaves behind ends with it, as with `asyncio.run`."""
    try:
        return await awaitable
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)


def _end() -> None:
    os.killpg(0, signal.SIGKILL)  # a session of our own: this ends us and what the handler started, nobody else


def _peak_bytes() -> int:
    """The most memory this process has used so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@cache
def _load(reference: str) -> Any:
    module, _, qualname = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def main() -> None:
    """Serves the descriptors given as arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides what Ctrl-C means
    connection, permits, signs, dumps = descriptors = [int(argument) for argument in sys.argv[1:5]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    faulthandler.register(frames.DUMP, dumps)
    for module in sys.argv[5:]:
        with contextlib.suppress(Exception):  # a job that needs it will say so
            importlib.import_module(module)
    _Child(socket.socket(fileno=connection), permits, signs).serve()


if __name__ == "__main__":
    main()
