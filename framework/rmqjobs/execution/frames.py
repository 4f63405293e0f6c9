"""What crosses the border to a child process: frames of a JSON head and a body of bytes. Never a pickle."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic_core import to_json

from rmqjobs.errors import JobError, Reject, RemoteError, Retry, Snooze

_LENGTHS = struct.Struct(">II")
Head = dict[str, Any]


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    try:
        encoded = to_json(head, fallback=repr, inf_nan_mode="null")
    except ValueError:  # bytes or half characters inside: what JSON cannot carry crosses as text
        encoded = json.dumps(head, default=repr).encode()
    return _LENGTHS.pack(len(encoded), len(body)) + encoded + body


async def read(reader: asyncio.StreamReader) -> tuple[Head, bytes] | None:
    """The next frame, or None when the other side is gone."""
    try:
        head_length, body_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        return json.loads(await reader.readexactly(head_length)), await reader.readexactly(body_length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def receive(connection: socket.socket) -> tuple[Head, bytes] | None:
    """The next frame from a blocking socket, or None when the other side is gone."""
    lengths = _receive_exactly(connection, _LENGTHS.size)
    if lengths is None:
        return None
    head_length, body_length = _LENGTHS.unpack(lengths)
    head, body = _receive_exactly(connection, head_length), _receive_exactly(connection, body_length)
    return None if head is None or body is None else (json.loads(head), body)


def _receive_exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(min(count - len(parts), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


def error_head(types: tuple[str, ...], error: BaseException, traceback: str) -> Head:
    """An exception as plain data; the three signals keep their meaning."""
    match error:
        case Retry():
            after = None if error.after is None else error.after.total_seconds()
            return {"signal": "retry", "reason": error.reason, "after": after}
        case Reject():
            return {"signal": "reject", "reason": error.reason}
        case Snooze():
            return {
                "signal": "snooze",
                "until": error.until and error.until.isoformat(),
                "for": error.for_ and error.for_.total_seconds(),
            }
        case _:
            return {"signal": "error", "types": types, "message": str(error), "traceback": traceback}


def error_of(head: Head) -> Exception:
    """The exception that `error_head` described."""
    match head["signal"]:
        case "retry":
            after = head["after"]
            return Retry(head["reason"], after=None if after is None else timedelta(seconds=after))
        case "reject":
            return Reject(head["reason"])
        case "snooze" if head["until"]:
            return Snooze(until=datetime.fromisoformat(head["until"]))
        case "snooze":
            return Snooze(for_=timedelta(seconds=head["for"]))
        case "error":
            return RemoteError(tuple(head["types"]), head["message"], head["traceback"])
        case unknown:
            return JobError(f"a child process sent {unknown!r}, which this version does not know")
