"""Where schedules come from, and what is refused at start."""

from datetime import timedelta
from pathlib import Path

import pytest

from rmqjobs import Payload, Plugin
from rmqjobs.errors import ConfigurationError, ScheduleError
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.schedule import Overlap
from rmqjobs.scheduler.catalogue import Catalogue, Origin, read_file


class Note(Payload, type="demo.note"):
    text: str


class Alone(Payload, type="demo.alone"):
    """Of a singleton."""


@pytest.fixture
def registry() -> Registry:
    plugin = Plugin("demo")

    @plugin.handler
    async def note(payload: Note) -> None: ...

    @plugin.handler(singleton=True)
    async def alone(payload: Alone) -> None: ...

    plugin.schedule("hourly", cron="0 * * * *", payload=Note(text="a"), tz="Europe/Berlin")
    plugin.schedule("alone", every=timedelta(minutes=1), payload=Alone())
    return registry_of(plugin)


def catalogue(registry: Registry, folder: Path, text: str) -> Catalogue:
    (folder / "rmqjobs.toml").write_text(text)
    return Catalogue(registry, read_file(folder / "rmqjobs.toml"))


def test_plugins_and_file_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    text = 'url = "amqp://h"\n[schedules.extra]\ntype = "demo.note"\nevery = "5m"\npayload = { text = "2027-01-01" }\n'
    found = {each.schedule.name: each for each in catalogue(registry, tmp_path, text)}
    assert {name: each.origin for name, each in found.items()} == {
        "demo.hourly": Origin.PLUGIN,
        "demo.alone": Origin.PLUGIN,
        "extra": Origin.FILE,
    }
    assert found["extra"].schedule.where == f"{tmp_path / 'rmqjobs.toml'}, line 2"
    assert found["extra"].schedule.payload["text"] == "2027-01-01"
    assert (found["demo.alone"].overlap, found["extra"].overlap) == (Overlap.SKIP, Overlap.ALLOW)


def test_an_override_changes_what_a_plugin_planned(registry: Registry, tmp_path: Path) -> None:
    found = catalogue(registry, tmp_path, '[overrides."demo.hourly"]\nevery = "10m"\npayload.text = "changed"\n')
    each = found.find("demo.hourly")
    assert (each.schedule.when, each.schedule.cron, each.schedule.payload) == ("every 10m", None, {"text": "changed"})
    assert (each.origin, each.overridden) == (Origin.PLUGIN, ("every", "payload"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[schedules."demo.hourly"]\ntype="demo.note"\nevery="1h"\n',
            ["of this name already (origin: plugin)", '[overrides."demo.hourly"]'],
        ),
        ('\n\n[schedules.a]\ntype="demo.note"\ncron="0 0 32 2 *"\n', ["line 3", "out of range"]),
        ('[schedules.a]\ntype="demo.nota"\nevery="1h"\n', ["line 1", "demo.nota", "Did you mean 'demo.note'?"]),
        (
            '[schedules.a]\ntype="demo.note"\nevery="1h"\n',
            ["its payload is not a payload of 'demo.note'", "text: Field required"],
        ),
        (
            '[schedules.a]\ntype="demo.note"\nevery="1h"\noverlap="skip"\npayload={text="x"}\n',
            ["never runs twice at once", "singleton=True"],
        ),
        (
            '[schedules.a]\ntype="demo.note"\nevery="1h"\npayload={text="x", txet="y"}\n',
            ["'txet', which 'demo.note' does not know", "Did you mean 'text'?"],
        ),
        ('[overrides."demo.hourli"]\nevery="1h"\n', ["no loaded plugin", "Did you mean 'demo.hourly'?"]),
        ('[overrides."demo.hourly"]\ntype="demo.alone"\n', ["type cannot be changed"]),
        ('[schedules]\na = { type = "demo.note", every = "x" }\n', ["line 2", "'x'"]),
        (
            '[schedules.a]\nevery="x"\n[schedules.b]\nevery="1h"\n',
            ["schedule 'a'", "schedule 'b'", "line 3", "type: Field required"],
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_line_and_reason(
    registry: Registry, tmp_path: Path, text: str, said: list[str]
) -> None:
    with pytest.raises(ScheduleError) as raised:
        catalogue(registry, tmp_path, text)
    assert [part for part in said if part not in str(raised.value)] == []


@pytest.mark.parametrize("text", ["schedules = 3\n", "[schedules]\na = 3\n", "[schedules.a\n"])
def test_a_file_that_is_none_is_refused(registry: Registry, tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        catalogue(registry, tmp_path, text)


def test_two_of_one_name_in_a_plugin_are_refused(registry: Registry) -> None:
    plugin = Plugin("other")
    for _ in range(2):
        plugin.schedule("twice", every=timedelta(hours=1), payload=Alone())
    handlers = Plugin("demo")

    @handlers.handler
    async def alone(payload: Alone) -> None: ...

    with pytest.raises(ScheduleError, match=r"'other.twice'.*line \d+.*of this name already"):
        Catalogue(registry_of(plugin, handlers))


def test_runtime_schedules_are_checked_and_removed(registry: Registry) -> None:
    found = Catalogue(registry)
    with pytest.raises(ScheduleError, match="of this name already"):
        found.add({"name": "demo.hourly", "type": "demo.note", "every": "1h", "payload": {"text": "x"}})
    with pytest.raises(ScheduleError, match="no plugin here handles"):
        found.add({"name": "a", "type": "other.type", "every": "1h"})
    found.add({"name": "a", "type": "other.type", "every": "1h"}, trusted=True)
    assert found.find("a").origin is Origin.RUNTIME
    assert found.declared().get("a") is None
    found.remove("a")
    with pytest.raises(ScheduleError, match="would come back"):
        found.remove("demo.hourly")
    with pytest.raises(ScheduleError, match=r"there is no schedule of this name. Did you mean 'demo.hourly'\?"):
        found.find("demo.hourl")
