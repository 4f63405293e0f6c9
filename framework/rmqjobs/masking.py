"""Hides what looks like a secret, in values that people look at. Floor 1: pure."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "•••"
_SECRET = re.compile(
    r"(^|[^a-z])(pass|pin)$|passw|passphrase|passcode|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential"
    r"|authorization|cookie",
    re.IGNORECASE,
)


def masked(value: Any) -> Any:
    """The same value, with what is under a key that looks like a secret's hidden; keys and shapes stay.

    Args:
        value: As read from JSON, at any depth.
    """
    match value:
        case dict():
            return {key: _hidden(inner) if _is_secret(key) else masked(inner) for key, inner in value.items()}
        case list():
            return [masked(inner) for inner in value]
        case _:
            return value


def _hidden(value: Any) -> Any:
    return value if value in (None, "") else HIDDEN


def _is_secret(key: object) -> bool:
    return isinstance(key, str) and _SECRET.search(key) is not None
