"""How a run ended, in the same words whichever pool it ran in."""

from __future__ import annotations

import inspect
from types import AsyncGeneratorType, GeneratorType

from rmqjobs.failures import failure_of, remote_error

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple})  # what most handlers return


def checked(result: object) -> object:
    """The result of a handler.

    Raises:
        TypeError: It is a promise: the body of a generator, or of a coroutine that nobody awaits, has not run.
    """
    if type(result) in _PLAIN or not _is_promise(result):
        return result
    if inspect.iscoroutine(result):
        result.close()  # it would warn that it was never awaited
    raise TypeError(
        f"the handler returned {_article(type(result).__name__)}, so its body has not run: return a value instead."
        " A decorator that hides `async def` has to await what it calls"
    )


def told(error: BaseException) -> Exception:
    """What a handler raised, as an exception that ends its job and nothing else.

    `SystemExit` would end the worker, and `StopIteration` cannot leave a coroutine: these become a `RemoteError`.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, (StopIteration, StopAsyncIteration)):
        error = error.__cause__  # Python's way to say that a coroutine raised it
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return remote_error(failure_of(error))


def _is_promise(result: object) -> bool:
    return isinstance(result, (GeneratorType, AsyncGeneratorType)) or inspect.isawaitable(result)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
