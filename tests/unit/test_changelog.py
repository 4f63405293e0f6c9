"""What the release looks for in the changelog."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "changelog.py"
spec = importlib.util.spec_from_file_location("changelog", TOOL)
assert spec is not None
assert spec.loader is not None
changelog = importlib.util.module_from_spec(spec)
spec.loader.exec_module(changelog)

ENTRY = "\n\n### Added\n\n- Something.\n"


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [
        (f"## Unreleased{ENTRY}", "0.1.0.dev7", None),
        (f"## 0.1.0 - 2026-12-01{ENTRY}", "0.1.0", None),
        (f"## 0.2.0 - 2027-01-01{ENTRY}## 0.1.0 - 2026-12-01{ENTRY}", "0.2.0", None),
        (f"## Unreleased{ENTRY}", "0.1.0", "0.1.0 is tagged"),
        (f"## 0.1.0 - 2026-12-01{ENTRY}", "0.1.1.dev3", "belong under '## Unreleased'"),
        (f"## 0.1.0{ENTRY}", "0.1.0", "has no day"),
        (f"## 0.1.0 - 2026-12-01{ENTRY}## 0.2.0 - 2027-01-01{ENTRY}", "0.1.0", "the newest release comes first"),
        ("## Unreleased\n\n", "0.1.0.dev7", "nothing stands under Unreleased"),
    ],
)
def test_a_changelog_fits_its_version(text: str, version: str, said: str | None) -> None:
    found = changelog.problems(text, version)
    assert (said is None) == (found == [])
    assert said is None or any(said in each for each in found)
