"""Which processes the journal has heard of lately: workers, schedulers and web servers, by their beats."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

from rmqjobs.errors import BrokerError
from rmqjobs.events import Event, EventKind
from rmqjobs.journal import follow
from rmqjobs.lifecycle import State
from rmqjobs.settings import Settings
from rmqjobs.tracking.reading import Life

REMEMBERED = timedelta(minutes=10)
BEATS_MISSED = 3  # beats without a sign, after which it counts as lost
KINDS = (EventKind.WORKER, EventKind.SCHEDULER, EventKind.WEB)


async def latest_beats(settings: Settings) -> dict[str, Event]:
    """The last beat of each process of the last minutes, by its name; none where the journal cannot be read."""
    found: dict[str, Event] = {}
    start = (datetime.now(UTC) - REMEMBERED).isoformat()
    try:
        async with aclosing(follow(settings, start=start, stop_at_end=True)) as events:
            async for event in events:
                if event.kind in KINDS and event.at >= datetime.now(UTC) - REMEMBERED:
                    found[event.source] = event
    except BrokerError:
        pass
    return found


def lost_since(beats: Mapping[str, Event], life: Life, now: datetime, interval: timedelta) -> datetime | None:
    """When the worker that runs a job gave its last sign of life, if that is too long ago.

    Args:
        beats: The last beat of each worker, by its name.
        life: The job's.
        now: When it is asked, aware.
        interval: The time between two beats.
    """
    beat = beats.get(life.records[-1].source)
    if life.state(now) is not State.RUNNING or beat is None or beat.data.get("state") == "stopped":
        return None
    return beat.at if is_lost(beat.at, now, interval) else None


def of_beat(beat: Event, now: datetime, interval: timedelta) -> dict[str, Any]:
    """What a beat says about whoever wrote it; `lost` when the next ones have not come."""
    report = {"worker": beat.source, **beat.data, "seen_at": beat.at.isoformat()}
    if report.get("state") != "stopped" and is_lost(beat.at, now, interval):
        report["state"] = "lost"
    return report


def is_lost(seen_at: datetime, now: datetime, interval: timedelta) -> bool:
    """Whether too many beats are missing since the last one."""
    return now - seen_at > interval * BEATS_MISSED
