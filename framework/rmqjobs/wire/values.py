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
