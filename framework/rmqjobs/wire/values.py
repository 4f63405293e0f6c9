"""Any value as JSON: what handlers return and report."""

from __future__ import annotations

from pydantic_core import to_json

from rmqjobs.failures import text_form, whole_characters


class Json(bytes):
    """A value that is JSON already, such as the result of a child process."""

    __slots__ = ()


def as_json(value: object, *, indent: int | None = None) -> Json:
    """The value as JSON, whatever it is.

    A part that JSON cannot express becomes its text form; when the value cannot be taken apart, all of it does. A handler that
    returned has done its job: what it returned must never make it run again.
    """
    if isinstance(value, Json):
        return value
    return _json(value, indent) or _json_of_plain(value, indent) or Json(to_json(text_form(value)))


def _json(value: object, indent: int | None) -> Json | None:
    try:
        return Json(to_json(value, indent=indent, fallback=text_form, inf_nan_mode="null"))
    except Exception:  # noqa: BLE001 - bytes that are not text, half characters, a list that holds itself, 5,000 levels
        return None


def _json_of_plain(value: object, indent: int | None) -> Json | None:
    try:
        return _json(plain(value), indent)
    except RecursionError:
        return None


def plain(value: object) -> object:
    """The value with half characters escaped in all its texts, at any depth; bytes become text, escaped where not UTF-8."""
    match value:
        case str():
            return whole_characters(value)
        case bytes():
            return value.decode(errors="backslashreplace")
        case dict():
            return {plain(key) if isinstance(key, (str, bytes)) else key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _:
            return value


_BRIEF_TEXT, _BRIEF_PARTS = 2_000, 50


def is_brief(value: object) -> bool:
    """Whether a handler's result is small and plain enough to stand in a record; looks at no more than fifty parts."""
    left, waiting = _BRIEF_PARTS, [value]
    while waiting:
        part = waiting.pop()
        left -= 1
        match part:
            case bool() | int() | float() | None:
                pass
            case str() | bytes() if len(part) <= _BRIEF_TEXT:
                pass
            case dict() if len(part) * 2 <= left:
                waiting += [*part.keys(), *part.values()]
            case list() | tuple() if len(part) <= left:
                waiting += part
            case _:
                return False
        if left < 0:
            return False
    return True
