"""A plugin with a hundred schedules, none of which is due today."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.systems import program
from rmqjobs import Payload, Plugin

plugin = Plugin("bench-schedules")


class Report(Payload, type="bench.report"):
    """Nothing."""


@plugin.handler
async def report(payload: Report) -> None:
    """Never run."""


for number in range(program.SCHEDULES):
    plugin.schedule(f"report-{number}", every=timedelta(days=number + 2), payload=Report())
