"""The least that each role must be allowed: these names, and none beside them."""

import re

import pytest

from rmqjobs.permissions import Role, pattern, roles
from tests.helpers import Stage


@pytest.fixture
def by_name() -> dict[str, Role]:
    return {role.name: role for role in roles(Stage().registry.handlers.values(), "my-app")}


def test_a_pattern_allows_its_names_and_no_others() -> None:
    allowed = pattern(["my-app.jobs", "my-app.delay.00", "my-app.delay.27"])
    assert allowed == r"^(my-app\.jobs|my-app\.delay\.\d\d)$"
    assert re.search(allowed, "my-app.delay.13")
    assert not any(re.search(allowed, name) for name in ("my-app.jobs.dead", "xmy-app.jobs", "my-appxjobs", "my-app.delay.1"))
    assert pattern([]) == "^$"


@pytest.mark.parametrize(
    ("role", "configure"), [("publisher", "^$"), ("worker", r"^(my-app\.claim\..*)$"), ("scheduler", r"^(my-app\.claim\..*)$")]
)
def test_only_the_operator_declares_what_holds_messages(by_name: dict[str, Role], role: str, configure: str) -> None:
    assert by_name[role].patterns[0] == configure
    assert by_name["operator"].patterns == (r"^my-app\..*$", r"^(my-app\..*|amq\.default)$", r"^my-app\..*$")


def test_who_reads_what(by_name: dict[str, Role]) -> None:
    assert by_name["publisher"].read == ()
    assert by_name["scheduler"].read == ("my-app.scheduler",)
    assert set(by_name["worker"].read) == {
        f"my-app.{queue}" for queue in ("demo", "demo.thread", "demo.process", "demo.alone", "unrouted", "control", "claim.*")
    }


def test_what_is_missing_is_named(by_name: dict[str, Role]) -> None:
    worker = by_name["worker"]
    assert worker.missing(*worker.patterns) == []
    configure, write, _ = worker.patterns
    assert worker.missing(configure, write, "^my-app.demo$")[0] == "read on my-app.demo.alone"
