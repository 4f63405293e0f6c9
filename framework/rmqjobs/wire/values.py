"""What handlers return, as JSON: any value has a form, whatever it does when it is asked for one."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from rmqjobs.failures import text_form


class Json(bytes):
    """A value that is JSON already, such as the result of a child process."""

    __slots__ = ()


def as_json(value: object) -> Json:
    """The value as JSON. What JSON cannot express becomes its text form: that part alone, or all of it when that fails too.

    A handler that returned has done its job: what it returned must never make it run again.
    """
    if isinstance(value, Json):
        return value
    try:
        return Json(to_json(value, fallback=text_form, inf_nan_mode="null"))
    except Exception:  # noqa: BLE001 - bytes that are no text, half characters, a list that holds itself, 5,000 levels
        return Json(to_json(text_form(value)))


def left_out(size: int, limit: int) -> dict[str, Any]:
    """What stands for a result that is too large to be sent."""
    return {"error": f"the result has {size:,} bytes, {limit:,} are possible", "bytes": size}
