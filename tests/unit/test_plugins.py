"""Finding plugins, on real distributions made for the test, and everything that can be wrong with them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rmqjobs import plugins
from rmqjobs.errors import NoHandler, PluginError
from rmqjobs.job import Job, Payload
from rmqjobs.plugin import Plugin, hookimpl
from rmqjobs.plugins import registry_of

HEAD = "from rmqjobs import Job, Payload, Plugin, hookimpl\nclass P(Payload, type='{type}'):\n    n: int = 0\n"
GOOD = HEAD + "plugin = Plugin('{name}')\n@plugin.handler\nasync def handle(payload: P) -> None: ...\n"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with one entry point on the path."""

    def make(name: str, code: str, *, dist: str = "", version: str = "1.2.3", type: str = "", point: str = "plugin") -> None:  # noqa: A002
        module = f"installed_{name}_{abs(hash((dist, code))) % 10**6}"
        folder = tmp_path / (dist or f"rmqjobs-{name}")
        info = folder / f"{(dist or f'rmqjobs-{name}').replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code.replace("{name}", name).replace("{type}", type or f"{name}.do"))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist or f'rmqjobs-{name}'}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[rmqjobs.plugins]\n{name} = {module}:{point}\n")
        monkeypatch.syspath_prepend(str(folder))

    return make


def test_a_plugin_is_found_with_its_distribution(install: Install) -> None:
    install("shiny", GOOD)
    registry = plugins.load(["shiny"])
    assert [(each.name, each.label) for each in registry.plugins] == [("shiny", "rmqjobs-shiny 1.2.3")]
    assert registry.handler("shiny.do").queue == "shiny"
    assert ("shiny", "rmqjobs-shiny", "1.2.3") in plugins.installed()


def test_an_unknown_type_is_no_handler() -> None:
    with pytest.raises(NoHandler, match=r"'no\.such'"):
        registry_of(Plugin("hello")).handler("no.such")


def test_a_missing_plugin_suggests_the_one_that_was_meant(install: Install) -> None:
    install("shiny", GOOD)
    with pytest.raises(PluginError, match=r"Did you mean 'shiny'\?.*pip install rmqjobs-shinny"):
        plugins.load(["shinny"])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError.*no_such_module_anywhere"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("x = 1", "AttributeError"),
        (HEAD + "plugin = Plugin('other')", "Plugin 'other'"),
        (HEAD + "plugin = Plugin('{name}')\n@plugin.handler\nasync def handle(payload): ...", "no annotation"),
        (
            HEAD + "class H:\n    @hookimpl\n    def rmqjobs_before_jb(self, job): ...\nplugin = Plugin('{name}', hooks=[H()])",
            "misspelt",
        ),
        (
            HEAD
            + "class H:\n    @hookimpl\n    def rmqjobs_before_job(self, jbo): ...\nplugin = Plugin('{name}', hooks=[H()])",
            "wrong parameters",
        ),
        (
            HEAD + "class H:\n    def rmqjobs_before_job(self, job): ...\nplugin = Plugin('{name}', hooks=[H()])",
            "not marked as a hook",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_with_its_distribution(install: Install, code: str, said: str) -> None:
    install("broken", code)
    with pytest.raises(PluginError, match=said) as caught:
        plugins.load(["broken"])
    assert "'rmqjobs-broken'" in str(caught.value)


def test_two_distributions_with_one_plugin_name_are_refused(install: Install) -> None:
    install("twin", GOOD, dist="acme-video")
    install("twin", GOOD, dist="other-video")
    with pytest.raises(PluginError, match=r"'(acme|other)-video' and '(acme|other)-video' both have a plugin 'twin'"):
        plugins.load(["twin"])


def test_one_job_type_has_one_handler(install: Install) -> None:
    install("one", GOOD, type="same.type")
    install("two", GOOD, type="same.type")
    with pytest.raises(PluginError, match=r"'same\.type' is handled by .*'rmqjobs-one'") as caught:
        plugins.load(["one", "two"])
    assert "'rmqjobs-two'" in str(caught.value)


def test_only_the_named_plugins_are_imported(install: Install) -> None:
    install("good", GOOD)
    install("awful", "import sys\nsys.exit(3)")
    assert [each.name for each in plugins.load(["good"]).plugins] == ["good"]
    assert not any("awful" in name for name in sys.modules)


class A(Payload, type="mix.a"): ...


class B(Payload, type="mix.b"): ...


def test_a_queue_serves_one_pool() -> None:
    plugin = Plugin("mix")

    @plugin.handler(queue="shared")
    async def on_loop(payload: A) -> None: ...

    @plugin.handler(queue="shared")
    def in_thread(payload: B) -> None: ...

    with pytest.raises(PluginError, match="'shared' is shared"):
        registry_of(plugin)


def test_hooks_are_plain_calls_and_none_cost_nothing() -> None:
    seen: list[object] = []

    class Watcher:
        @hookimpl
        def rmqjobs_after_job(self, error: BaseException | None) -> None:  # takes only what it needs
            seen.append(error)

    registry = registry_of(Plugin("watch", hooks=[Watcher()]))
    assert (registry.before, registry.verdict) == ((), ())
    (after,) = registry.after
    after(job=Job("1", "x"), error=None)
    assert seen == [None]


def test_only_what_is_allowed_is_imported(install: Install) -> None:
    trap = "raise SystemExit('imported')"
    install("shiny", GOOD, dist="Rmqjobs_Shiny")
    install("evil", trap)
    allowed = ["rmqjobs-shiny"]  # names are compared as package indexes do
    assert [each.name for each in plugins.load(allowed=allowed).plugins] == ["shiny"]
    assert [name for name, _, _ in plugins.installed(allowed)] == ["shiny"]
    with pytest.raises(PluginError, match=r"'evil' of distribution 'rmqjobs-evil': is not in the setting allowed_plugins"):
        plugins.load(["shiny", "evil"], allowed=allowed)


def test_an_uninvited_distribution_cannot_take_an_allowed_ones_name(install: Install) -> None:
    install("shiny", GOOD)
    install("shiny", "raise SystemExit('imported')", dist="rmqjobs-impostor")
    assert [each.distribution for each in plugins.load(["shiny"], allowed=["rmqjobs-shiny"]).plugins] == ["rmqjobs-shiny"]
