"""Logs of the running roles: to stderr, for people on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys

import structlog


def _add_pid(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Several workers may write to one place."""
    event["pid"] = os.getpid()
    return event


def configure(log_format: str, *, level: int = logging.INFO) -> None:
    """Sets up logging for this process.

    Args:
        log_format: `console`, `json`, or `auto`: console on a terminal.
        level: Of our own loggers.
    """
    as_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_console else "iso", utc=not as_console),
    ]
    if as_console:
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    else:
        shared += [structlog.stdlib.add_logger_name, _add_pid, structlog.processors.format_exc_info]
        renderer = structlog.processors.JSONRenderer(default=str)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("rmqjobs").setLevel(level)
    logging.getLogger("rmqjobs.publishing").setLevel(level)
