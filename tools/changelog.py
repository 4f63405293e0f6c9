"""Checks CHANGELOG.md for a version: `changelog.py VERSION`.

A release has its own dated heading on top. Between releases, changes wait under `Unreleased`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

UNRELEASED = "Unreleased"
HEADING = re.compile(r"^## (?P<name>\S+)(?: - (?P<day>\S+))?$", re.MULTILINE)


def problems(text: str, version: str) -> list[str]:
    """What is wrong with a changelog for this version, each in a sentence."""
    found = list(HEADING.finditer(text))
    names = [heading["name"] for heading in found]
    wrong = [
        f"{heading['name']} has no day after it: ## {heading['name']} - YYYY-MM-DD" for heading in found if not _dated(heading)
    ]
    releases = [name for name in names if name != UNRELEASED]
    if sorted(releases, key=_number, reverse=True) != releases:
        wrong.append(f"the newest release comes first, not {', '.join(releases)}")
    if ".dev" in version and names[:1] != [UNRELEASED]:
        wrong.append(f"changes since the last release belong under '## {UNRELEASED}', on top")
    if ".dev" not in version and names[:1] != [version]:
        wrong.append(f"{version} is tagged, and the topmost heading is {names[:1]}: rename it to '## {version} - YYYY-MM-DD'")
    if found and not text[found[0].end() : found[1].start() if len(found) > 1 else len(text)].strip():
        wrong.append(f"nothing stands under {names[0]}")
    return wrong


def _dated(heading: re.Match[str]) -> bool:
    if heading["name"] == UNRELEASED:
        return heading["day"] is None
    return re.fullmatch(r"\d{4}-\d\d-\d\d", heading["day"] or "") is not None


def _number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name))


if __name__ == "__main__":
    faults = problems(Path("CHANGELOG.md").read_text(), sys.argv[1])
    for fault in faults:
        print(f"CHANGELOG.md: {fault}", file=sys.stderr)
    sys.exit(bool(faults))
