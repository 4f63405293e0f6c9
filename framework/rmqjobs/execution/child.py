"""The program of a child process: takes jobs from its parent, one at a time, and runs them.

Started as `python -m rmqjobs.execution.child FD`. When the parent is gone, or while a singleton runs is silent for longer than
its lease, it ends itself and all it has started: another worker is about to run the same job.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import queue
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from threading import Lock, Thread
from typing import Any

from pydantic import JsonValue

from rmqjobs.execution import frames
from rmqjobs.job import Job
from rmqjobs.retry import qualified_name


class _Child:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pid = os.getpid()
        self._sending = Lock()  # a handler may report from threads of its own
        self._lease: float | None = None  # seconds that the job which runs now may go on without a word of the parent
        self._jobs: queue.SimpleQueue[tuple[frames.Head, bytes]] = queue.SimpleQueue()

    def serve(self) -> None:
        Thread(target=self._listen, daemon=True).start()
        while True:
            head, body = self._jobs.get()
            answer = self._run(head, body)
            self._lease = None
            self._send({**answer, "peak_bytes": _peak_bytes()})

    def _listen(self) -> None:
        while self._hears() and (frame := frames.receive(self._connection)) is not None:
            head, _ = frame
            if "alive" not in head:
                self._lease = head["lease"]
                self._jobs.put(frame)
        os.killpg(0, signal.SIGKILL)  # a session of our own: this ends us and what the handler started, nobody else

    def _hears(self) -> bool:
        """Waits for a word of the parent; False when a job with a lease runs and none came in its time."""
        while not select.select([self._connection], [], [], self._lease)[0]:
            if self._lease is not None:
                return False
        return True

    def _run(self, head: frames.Head, body: bytes) -> frames.Head:
        try:
            function, payload_type = _load(head["function"]), _load(head["payload"])
            arguments: list[Any] = [payload_type.model_validate_json(body)]
            if head["wants_job"]:
                arguments.append(self._job(head["job"]))
            result = function(*arguments)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except BaseException as error:  # noqa: BLE001 - every end of a handler is a value here
            types = tuple(qualified_name(kind) for kind in type(error).__mro__[:-1])
            return frames.error_head(types, error, traceback.format_exc())
        return {"result": result}

    def _job(self, fields: dict[str, Any]) -> Job:
        for name in ("published_at", "scheduled_for", "period_start"):
            fields[name] = fields[name] and datetime.fromisoformat(fields[name])
        return Job(**fields, reporter=self._report)

    def _report(self, _job: Job, kind: str, data: Mapping[str, JsonValue]) -> None:
        self._send({"report": kind, "data": data})

    def _send(self, head: frames.Head) -> None:
        if os.getpid() != self._pid:  # the handler forked and its copy came back: only the original answers
            os._exit(1)
        with self._sending, contextlib.suppress(BrokenPipeError):  # the listening thread ends us
            self._connection.sendall(frames.pack(head))


def _peak_bytes() -> int:
    """The most memory this process has used so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _load(reference: str) -> Any:
    module, _, qualname = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def main() -> None:
    """Serves the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides what Ctrl-C means
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    _Child(socket.socket(fileno=descriptor)).serve()


if __name__ == "__main__":
    main()
