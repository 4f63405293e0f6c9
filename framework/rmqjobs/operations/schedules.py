"""Asks the active scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import JsonValue

from rmqjobs.amqp.asking import ask
from rmqjobs.settings import Settings
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire

ANSWER_WITHIN = timedelta(seconds=5)


async def ask_scheduler(
    settings: Settings, verb: str, arguments: Mapping[str, JsonValue], *, by: str, timeout: timedelta = ANSWER_WITHIN
) -> dict[str, Any]:
    """What it answers: `ok` with the result, or `error`, `code` and perhaps `unknown`; and `standbys`.

    Args:
        settings: The broker, and the prefix.
        verb: `list`, `show`, `run`, `pause`, `resume`, `add` or `remove`.
        arguments: Of the verb.
        by: Who asks.
        timeout: How long to wait.

    Raises:
        NoScheduler: None answers.
        BrokerError: The broker is not there, or refuses us.
    """
    body = wire.command(verb, arguments)
    return dict(
        wire.read_answer(await ask(settings, Names(settings.prefix).scheduler, wire.COMMAND, body, by=by, timeout=timeout))
    )
