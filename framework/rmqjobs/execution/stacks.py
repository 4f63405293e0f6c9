"""Where running code is, as lines such as `/srv/video.py:12 in transcode`, outermost first."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

_DUMPED = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
_CURRENT = "Current thread"
INNER = "work"  # the local variable in which our own step-wise awaiting keeps its coroutine


def in_tasks(code: CodeType, local: str, value: object) -> list[str]:
    """The stack of the async function that a frame awaits, found among all tasks of this loop.

    Args:
        code: The code of that frame.
        local: A local variable of it.
        value: What that variable is.
    """
    for task in asyncio.all_tasks():
        frames = list(_awaited(task.get_coro()))
        for place, frame in enumerate(frames):
            if frame.f_code is code and frame.f_locals.get(local) is value:
                return [_line(each) for each in frames[place + 1 :]]
    return []


def in_threads(code: CodeType, local: str, value: object) -> list[str]:
    """The stack of what a frame called, found among all threads; the arguments are those of `in_tasks`."""
    for innermost in sys._current_frames().values():  # noqa: SLF001 - the documented way
        frames: list[FrameType] = []
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code is code and frame.f_locals.get(local) is value:
                return [_line(each) for each in reversed(frames)]
            frames.append(frame)
            frame = frame.f_back
    return []


def in_dump(text: str, own_file: str) -> list[str]:
    """The stack of the main thread in what `faulthandler` wrote.

    Args:
        text: What it wrote.
        own_file: The file of the program's own frames, which are left out.
    """
    _, _, current = text.partition(_CURRENT)
    found: list[str] = []
    for line in current.splitlines()[1:]:
        parts = _DUMPED.fullmatch(line)
        if parts is None or parts["file"] == own_file:
            break
        found.append(f"{parts['file']}:{parts['line']} in {parts['function']}")
    return found[::-1]


def _awaited(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of all that it awaits."""
    while awaitable is not None:
        match awaitable:
            case CoroutineType(cr_frame=frame, cr_await=inner):
                pass
            case GeneratorType(gi_frame=frame, gi_yieldfrom=inner):
                pass
            case AsyncGeneratorType(ag_frame=frame, ag_await=inner):
                pass
            case _:
                return
        if frame is None:
            return
        yield frame
        awaitable = inner if inner is not None else frame.f_locals.get(INNER)


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
