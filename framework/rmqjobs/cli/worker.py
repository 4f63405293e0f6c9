"""`rmqjobs worker`: runs handlers until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from typing import Annotated, Literal

from cyclopts import Parameter

from rmqjobs.cli import logs
from rmqjobs.cli.loops import loop_factory
from rmqjobs.cli.notify import SOCKET, STOPPING, Notifier
from rmqjobs.cli.options import Common, Words
from rmqjobs.cli.signals import PARENT_PIPE, stop_by_signal, stop_with_parent
from rmqjobs.errors import ConfigurationError
from rmqjobs.machine import sizes
from rmqjobs.plugins import Registry, load
from rmqjobs.probes import Probes
from rmqjobs.settings import Settings
from rmqjobs.worker import Worker

LAST_PORT = 65_535
FIRST_PROCESS = 1  # of a container: it must pass on signals and collect processes that others leave behind
Number = int | Literal["auto"] | None
log = logging.getLogger("rmqjobs.worker")


def worker(
    *,
    plugin: Words = None,
    processes: Number = None,
    concurrency: int | None = None,
    threads: Number = None,
    children: Number = None,
    grace: str | None = None,
    metrics_port: int | None = None,
    check: bool = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"])] = False,
    common: Common | None = None,
) -> int:
    """Run the handlers of plugins.

    The first SIGTERM or Ctrl-C drains: the worker takes no new jobs, waits for running ones within the grace period, and
    gives the rest back. The second ends it at once.

    Parameters
    ----------
    plugin
        A plugin to serve; repeat it for several. All installed ones when none is named.
    processes
        Whole workers under one parent, which replaces those that die; all other numbers are for each worker. auto is one
        for each processor that this process may use.
    concurrency
        Async handlers at once.
    threads
        Thread handlers at once; by default ten for each processor.
    children
        Process handlers at once; by default one for each processor.
    grace
        How long a drain waits for running jobs, such as 25s.
    metrics_port
        Serve /metrics, /livez and /readyz on this port; with several processes, each on the next higher one.
    check
        Load the plugins, say what would be consumed, and exit.
    verbose
        Log every job, not only those that did not go well.
    """
    settings = (common or Common()).settings(
        plugins=plugin or None,
        processes=processes,
        concurrency=concurrency,
        threads=threads,
        children=children,
        grace=grace,
        metrics_port=metrics_port,
    )
    logs.configure(settings.log_format, level=logging.DEBUG if verbose else logging.INFO)
    processes = sizes(settings).processes
    if (settings.metrics_port or 0) + processes - 1 > LAST_PORT:
        problem = f"{processes} processes take a port each, and {settings.metrics_port} is too close to the last one"
        raise ConfigurationError("metrics_port", problem, f"The last port is {LAST_PORT}")
    alone = processes == 1
    if not check and (not alone or os.getpid() == FIRST_PROCESS):
        from rmqjobs.cli.fleet import Fleet  # noqa: PLC0415 - only the parent of several

        return asyncio.run(Fleet(settings, ["--verbose"] if verbose else [], init=alone).run())
    new_loop = loop_factory(settings.event_loop)
    registry = load(settings.plugins, allowed=settings.allowed_plugins)
    _introduce(registry, settings)
    if check:
        return 0
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(registry, settings))


def _introduce(registry: Registry, settings: Settings) -> None:
    for plugin in registry.plugins:
        queues = sorted({handler.queue for handler in plugin.handlers})
        types = ", ".join(handler.job_type for handler in plugin.handlers)
        log.info("plugin loaded", extra={"plugin": plugin.name, "version": plugin.version, "types": types, "queues": queues})
    if not registry.handlers:
        log.warning("no handlers: this worker has nothing to do", extra={"plugins": [each.name for each in registry.plugins]})
    log.info("broker", extra={"broker": str(settings.broker), "prefix": settings.prefix})


async def _serve(registry: Registry, settings: Settings) -> int:
    serving = Worker(registry, settings)
    stop, manager = stop_by_signal("second signal: ending now; running jobs go to other workers"), Notifier(os.environ)
    # What the parent passes on is for this process, not for those that handlers start.
    os.environ.pop(SOCKET, None)
    if (pipe := os.environ.pop(PARENT_PIPE, None)) is not None:
        stop_with_parent(stop, int(pipe))
    collectors = (serving.figures, serving.policies)
    probes = Probes(settings, role="worker", collectors=collectors, trouble=lambda: serving.trouble)
    async with probes, manager.alive(lambda: serving.is_ready):
        await serving.start()
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        at_once = {"concurrency": settings.concurrency, "threads": serving.sizes.threads, "children": serving.sizes.children}
        log.info("worker ready", extra={"worker": serving.name, "event_loop": loop, **at_once})
        await asyncio.wait(
            [asyncio.ensure_future(each.wait()) for each in (stop, serving.orders.told_to_stop)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        manager.say(STOPPING)
        return await _drain(serving, settings.grace)


async def _drain(serving: Worker, grace: timedelta) -> int:
    log.info("draining", extra={"running": serving.running, "grace_seconds": grace.total_seconds()})
    interrupted = await serving.drain(grace)
    log.info("worker stopped", extra={"interrupted": interrupted})
    return 0
