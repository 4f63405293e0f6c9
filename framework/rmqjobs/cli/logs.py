"""Logs of the running roles: to stderr, for people on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from rmqjobs.wire.values import as_json

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(log_format: str, *, level: int = logging.INFO) -> None:
    """Sets up logging for this process.

    Args:
        log_format: `console`, `json`, or `auto`: console on a terminal.
        level: Level of our own loggers.
    """
    as_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_for_people() if as_console else JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("rmqjobs").setLevel(level)
    logging.getLogger("rmqjobs.publishing").setLevel(level)


class JsonLines(logging.Formatter):
    """One JSON object per line. It is quick: a worker that fails thousands of jobs a second writes as many lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's own fields, then what was given as `extra`."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "pid": record.process,  # several workers may write to one place
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return as_json(line).decode()


def _for_people() -> logging.Formatter:
    import structlog  # noqa: PLC0415 - with its imports it would be the largest part of a worker, which does not need it

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    ]
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    processors: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors)
