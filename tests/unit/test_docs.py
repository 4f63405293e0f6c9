"""Documentation as a tested contract: what the code has is written down, and what is written down exists."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import rmqjobs
from rmqjobs.cli import app
from rmqjobs.events import EventKind
from rmqjobs.retry import DeadReason
from rmqjobs.wire import headers

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT / "tools"))
reference = import_module("reference")
sys.path.pop(0)

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md")]


@pytest.mark.parametrize("name", ["settings.md", "errors.md", "hooks.md", "topology.md", "schedules.md"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text() == reference.NOTE + reference.PAGES[name]() + "\n", "run: make reference"


def test_every_command_is_described() -> None:
    text = (REFERENCE / "commands.md").read_text()
    names = [name for name in app if not name.startswith("-")]
    assert names
    assert [name for name in names if f"## `rmqjobs {name}`" not in text] == []


def test_every_header_is_in_the_contract() -> None:
    text = (REFERENCE / "message-contract.md").read_text()
    mine = {
        value
        for value in vars(headers).values()
        if isinstance(value, str) and value.startswith("rmqjobs-") and value != headers.OURS
    }
    dropped = {headers.DROPPED_AT, headers.DROPPED_BECAUSE}  # of dropped ones, for ourselves
    assert sorted(name for name in mine - dropped if f"`{name}`" not in text) == []


def test_every_reason_and_event_is_in_the_contract() -> None:
    text = (REFERENCE / "message-contract.md").read_text()
    assert [each.value for each in (*DeadReason, *EventKind) if f"`{each.value}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_public_names_are_these() -> None:
    assert all(getattr(rmqjobs, name) is not None for name in rmqjobs.__all__)
    assert set(rmqjobs.__all__) == set(rmqjobs._HOMES)
    with pytest.raises(AttributeError, match="Worker"):
        rmqjobs.Worker  # noqa: B018 - not public


def test_the_plugin_in_the_readme_works() -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    scope: dict[str, object] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec", dont_inherit=True), scope)
    (handler,) = scope["plugin"].rmqjobs_handlers()  # type: ignore[attr-defined]
    assert (handler.job_type, handler.queue, handler.retry.max_attempts) == ("hello.greet", "hello", 5)
