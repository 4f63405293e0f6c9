"""`rmqjobs scheduler`: publishes ticks until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated

from cyclopts import Parameter

from rmqjobs.cli import logs
from rmqjobs.cli.notify import STOPPING, Notifier
from rmqjobs.cli.options import Common, Flag, Words
from rmqjobs.cli.signals import stop_by_signal
from rmqjobs.plugins import load
from rmqjobs.probes import Probes
from rmqjobs.scheduler.catalogue import Catalogue, read_file
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.settings import Settings

log = logging.getLogger("rmqjobs.scheduler")


def scheduler(
    *,
    plugin: Words = None,
    metrics_port: int | None = None,
    check: Flag = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")] = False,
    common: Common | None = None,
) -> int:
    """Publish the ticks of schedules: those of plugins, of rmqjobs.toml, and those added with `rmqjobs schedules add`.

    Run two or more: RabbitMQ makes one of them active, the others stand by and take over when it dies.

    Parameters
    ----------
    plugin
        A plugin whose schedules and job types to load; repeat it for several. All installed ones when none is named.
    metrics_port
        Serve /metrics, /livez and /readyz on this port.
    check
        Load and check the schedules, say how many there are, and exit.
    verbose
        Log every tick, not only what is out of the ordinary.
    """
    common = common or Common()
    settings = common.settings(plugins=plugin or None, metrics_port=metrics_port)
    logs.configure(settings.log_format, level=logging.DEBUG if verbose else logging.INFO)
    registry = load(settings.plugins, allowed=settings.allowed_plugins)

    def catalogue() -> Catalogue:
        return Catalogue(registry, read_file(common.file))

    schedules = catalogue()
    log.info("schedules loaded", extra={"schedules": len(schedules), "plugins": [each.name for each in registry.plugins]})
    if by_hand := [each.schedule.name for each in schedules if not each.timetable.comes]:
        log.warning("schedules that never tick by themselves: there is no such day", extra={"schedules": by_hand})
    log.info("broker", extra={"broker": str(settings.broker), "prefix": settings.prefix})
    if check:
        return 0
    return asyncio.run(_serve(Scheduler(catalogue, settings, file=common.file), settings))


async def _serve(serving: Scheduler, settings: Settings) -> int:
    stop, manager = stop_by_signal("second signal: ending now"), Notifier(os.environ)
    collectors = (serving.chronicle, serving.policies)
    probes = Probes(settings, role="scheduler", collectors=collectors, trouble=lambda: serving.trouble)
    async with probes, manager.alive(lambda: serving.is_ready):
        await serving.run(stop)
        manager.say(STOPPING)
    log.info("scheduler stopped", extra={"scheduler": serving.name})
    return 0
