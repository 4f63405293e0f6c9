"""Job ids: a new one, and when one was made."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import uuid_utils

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_job_id() -> str:
    """A UUIDv7: unique, and ordered by time."""
    return str(uuid_utils.uuid7())


def made_at(job_id: str) -> datetime | None:
    """When an id was made: a UUIDv7 begins with the time; None for any other id."""
    if not _UUID7.fullmatch(job_id):
        return None
    try:
        return datetime.fromtimestamp(int(job_id[:8] + job_id[9:13], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
