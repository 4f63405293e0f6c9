"""What a handler raised, as short plain text, even when its class misbehaves. Floor 1: pure, stdlib only.

An exception may have no text, fifty megabytes of text, or lone surrogates (half characters) that no message can carry. All of
them become a `Failure` here, once; nothing above this floor calls `str` on a handler's exception.
"""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rmqjobs.errors import RemoteError

MAX_TYPE = 200
MAX_MESSAGE = 1024
MAX_TRACEBACK = 8 * 1024
OUR_FILES = f"{Path(__file__).parent}/"
_MAX_PART = 2 * 1024  # of one frame or one exception within a traceback


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text.

    Args:
        types: Qualified names of its class and that class's bases, the class itself first.
        message: What it says, `MAX_MESSAGE` characters at most.
        traceback: The last `MAX_TRACEBACK` characters; empty when it was never raised, or none was asked for.
    """

    types: tuple[str, ...]
    message: str
    traceback: str = ""

    @property
    def type(self) -> str:
        """Qualified name of its class."""
        return self.types[0]

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def failure_of(error: BaseException, *, traceback: bool = True) -> Failure:
    """The exception as text; without its traceback where nobody will read that."""
    if isinstance(error, RemoteError):
        return Failure(error.types, str(error), error.traceback if traceback else "")
    types = tuple(qualified_name(kind) for kind in type(error).__mro__ if kind is not object)
    return Failure(types, printable(error), _traceback(error) if traceback else "")


def remote_error(failure: Failure) -> RemoteError:
    """The failure as an exception again, for code that decides by the exception's class."""
    return RemoteError(failure.types, failure.message, failure.traceback)


def qualified_name(kind: type) -> str:
    """`module.Class`, without `builtins.`: the name that an error has in headers, listings and between processes."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return shortened(whole_characters(name), MAX_TYPE)


def printable(value: object, limit: int = MAX_MESSAGE) -> str:
    r"""The value's text, whatever its `__str__` does; a half character is written like `\udce9`."""
    return _text(str, value, limit)


def text_form(value: object, limit: int = MAX_MESSAGE) -> str:
    """The value's `repr`, whatever its `__repr__` does."""
    return _text(repr, value, limit)


def shortened(text: str, limit: int) -> str:
    """The text; if it is longer than the limit, its beginning and how long it was."""
    if len(text) <= limit:
        return text
    mark = f" … ({len(text):,} characters)"
    return text[: limit - len(mark)] + mark


def whole_characters(text: str) -> str:
    r"""The text with half characters written like `\udce9`: neither UTF-8 nor JSON can carry them."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _text(form: Callable[[object], str], value: object, limit: int) -> str:
    try:
        text = form(value)
    except Exception as error:  # noqa: BLE001 - the value is somebody else's, and so is what it raises
        return f"<{type(value).__qualname__}: its text is not available, {type(error).__qualname__} was raised>"
    return whole_characters(shortened(text, limit))


def _traceback(error: BaseException) -> str:
    try:
        trace = _from_the_application(error.__traceback__)
        parts = tracebacks.format_exception(type(error), error, trace) if trace is not None else []
    except Exception as broken:  # noqa: BLE001 - as in `_text`
        return f"<the traceback is not available: {type(broken).__qualname__} was raised>"
    # Each part is shortened by itself: a message of a megabyte must not push out the frames.
    text = "".join(shortened(part.rstrip("\n"), _MAX_PART) + "\n" for part in parts)
    return whole_characters(text[-MAX_TRACEBACK:])


def _from_the_application(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our own first frames, which called the handler; the whole of it when all frames are ours."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(OUR_FILES):
        inner = inner.tb_next
    return inner or trace
