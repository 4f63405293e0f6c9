"""`rmqjobs doctor`: looks at the broker and says what would go wrong, with what was seen and how to mend it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import asdict

from rich.markup import escape

from rmqjobs.cli.errors import INVALID
from rmqjobs.cli.options import Common, Flag, Words
from rmqjobs.cli.output import console, print_json
from rmqjobs.doctor.checks import Finding, Patient, Severity, examine
from rmqjobs.doctor.facts import gather
from rmqjobs.plugins import load
from rmqjobs.settings import mask_url
from rmqjobs.topology import build

_COLOURS = {Severity.OK: "green", Severity.NOTE: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}


def doctor(*, plugin: Words = None, all_: Flag = False, json: Flag = False, common: Common | None = None) -> int:
    """Look at the broker, and say what would go wrong. Changes nothing; exits with 7 when something is wrong now.

    Parameters
    ----------
    plugin
        A plugin whose queues to look at; all installed ones when none is named.
    all_
        Show the checks that found nothing, too.
    json
        Print JSON.
    """
    common = common or Common()
    settings = common.settings(plugins=plugin or None)
    handlers = tuple(load(settings.plugins, allowed=settings.allowed_plugins).handlers.values())
    topology = build(handlers, settings.prefix)
    facts = asyncio.run(gather(settings, topology))
    findings = examine(Patient(facts, settings, handlers, topology, _options(common, plugin)))
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if json:
        print_json({"broker": str(settings.broker), "version": facts.version, "findings": list(map(asdict, findings))})
    else:
        _print([finding for finding in findings if all_ or finding.severity is not Severity.OK])
        counts = ", ".join(f"{sum(each.severity is kind for each in findings)} {kind.value}" for kind in Severity)
        console().print(f"{settings.broker}: {counts}")
    return INVALID if errors else 0


def _options(common: Common, plugins: list[str] | None) -> str:
    """The options that this command was given, for the commands in findings; a password is masked, to be filled in."""
    given = {"--url": common.url and mask_url(common.url), "--prefix": common.prefix, "--config": common.config}
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return shlex.join([*words, *(word for plugin in plugins or () for word in ("--plugin", plugin))])


def _print(findings: list[Finding]) -> None:
    out, wide = console(), sys.stdout.isatty()
    for finding in findings:
        mark = f"[{_COLOURS[finding.severity]}]{finding.severity.value:<8}[/]" if wide else f"{finding.severity.value:<8}"
        out.print(f"{mark}{escape(finding.check)}: {escape(finding.summary)}")
        if finding.evidence:
            out.print(f"        seen: {escape(finding.evidence)}")
        if finding.mend:
            out.print(f"        mend: {escape(finding.mend)}")
