"""Asks before something is done that many jobs feel."""

from __future__ import annotations

import sys

from rmqjobs.cli.errors import USAGE, fail


def confirm(deed: str, *, yes: bool) -> None:
    """Asks whether to do it; exits when the answer is no, or nobody can answer.

    Args:
        deed: What would be done, such as `drop 12`.
        yes: It is confirmed already.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"not confirmed. To {deed}, add --yes", USAGE)
    if _asked(f"{deed}? [y/N] ").lower() not in ("y", "yes"):
        fail("nothing was done", USAGE)


def confirm_by_name(deed: str, name: str, given: str | None) -> None:
    """As `confirm`, but for the name of what it is done to, typed or given with --confirm."""
    if given is None and not sys.stdin.isatty():
        fail(f"not confirmed. To {deed}, add --confirm {name}", USAGE)
    if (given if given is not None else _asked(f"to {deed}, type its name: ")) != name:
        fail("that is another name: nothing was done", USAGE)


def _asked(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
