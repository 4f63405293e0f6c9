"""Who is there: workers that answer, and other processes that the journal has heard of lately."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from rmqjobs.control import Verb
from rmqjobs.operations.operator import operator
from rmqjobs.settings import Settings
from rmqjobs.tracking.processes import latest_beats, of_beat


async def roster(settings: Settings, *, by: str, within: timedelta) -> list[dict[str, Any]]:
    """How each process is, by name; those that did not answer with `seen_at`, the time of their last beat.

    Args:
        settings: The broker, and the prefix.
        by: Who asks.
        within: How long to wait for answers.

    Raises:
        BrokerError: The broker is not there, or refuses us.
    """
    async with operator(settings, by=by) as at_work:
        answers, beats = await asyncio.gather(at_work.ask(Verb.PING, within=within), latest_beats(settings))
    live = {answer["worker"]: answer for answer in answers}
    now = datetime.now(UTC)
    remembered = {name: of_beat(beat, now, settings.beat_interval) for name, beat in beats.items() if name not in live}
    return [report for _, report in sorted((live | remembered).items())]
