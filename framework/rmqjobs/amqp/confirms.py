"""Which messages a publisher confirm is about."""

from __future__ import annotations

from typing import Any


class Confirms:
    """Knows which messages of a channel a confirm is about: one or, with `multiple`, all that are still open up to it."""

    def __init__(self) -> None:
        self._oldest = 1

    def tags(self, method: Any) -> range:
        """Their delivery tags."""
        tag: int = method.delivery_tag
        if not method.multiple:
            return range(tag, tag + 1)
        first, self._oldest = self._oldest, tag + 1
        return range(first, tag + 1)
