"""Finds plugins through entry points and makes an immutable `Registry` of them. Floor 5.

Everything that is wrong with a plugin is found here, before a worker takes its first job. Errors name the distribution.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from rmqjobs import hookspecs, payloads
from rmqjobs.errors import NoHandler, PluginError
from rmqjobs.failures import failure_of
from rmqjobs.job import Handler
from rmqjobs.plugin import PROJECT, Plugin

if TYPE_CHECKING:
    from rmqjobs.schedule import Schedule

GROUP = "rmqjobs.plugins"
HookFunction = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """One plugin and where it comes from."""

    name: str
    distribution: str
    version: str
    handlers: tuple[Handler, ...] = ()
    schedules: tuple[Schedule, ...] = ()

    @property
    def label(self) -> str:
        """Distribution and version, as written in dead letters."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Registry:
    """What the loaded plugins provide; it never changes.

    Args:
        plugins: In order of name.
        handlers: By job type.
        before, after, verdict: Hook functions, called with keywords; empty tuples cost nothing.
        commands: Extra command-line commands.
    """

    plugins: tuple[InstalledPlugin, ...]
    handlers: Mapping[str, Handler]
    before: tuple[HookFunction, ...] = ()
    after: tuple[HookFunction, ...] = ()
    verdict: tuple[HookFunction, ...] = ()
    commands: Mapping[str, Callable[..., Any]] | None = None

    def handler(self, job_type: str) -> Handler:
        """The handler of a job type; raises `NoHandler`."""
        handler = self.handlers.get(job_type)
        if handler is None:
            raise NoHandler(f"no plugin of this worker handles {job_type!r}; it has {', '.join(self.handlers) or 'none'}")
        return handler

    def version_of(self, plugin: str) -> str:
        """Distribution and version of a plugin by name; empty when unknown."""
        return next((each.label for each in self.plugins if each.name == plugin), "")


@dataclass(frozen=True, slots=True)
class _Found:
    """A plugin object and where it was found."""

    name: str
    plugin: object
    distribution: str = ""
    version: str = ""


def load(names: Sequence[str] = (), *, allowed: Sequence[str] = ()) -> Registry:
    """Loads the named plugins, or all installed ones. If `allowed` names distributions, only their plugins are imported.

    Raises:
        PluginError: One is missing, not allowed or cannot be used.
    """
    available = _available(allowed)
    for name in names:
        if name not in available and (uninvited := _available().get(name)):
            raise PluginError(
                "is not in the setting allowed_plugins, and was not imported",
                plugin=name,
                distribution=_distribution(uninvited[0])[0],
                hint=f"The setting takes names of distributions; it has {', '.join(allowed)}",
            )
    if allowed and not available:
        there = sorted({_distribution(point)[0] for points in _available().values() for point in points})
        raise PluginError(
            f"allowed_plugins names {', '.join(map(repr, allowed))}: no plugin is left",
            hint=f"It takes names of distributions; those with a plugin are {', '.join(there) or 'none'}",
        )
    wanted = names or sorted(available)
    return _registry([_load(_pick(name, available)) for name in dict.fromkeys(wanted)])


def registry_of(*plugins: Plugin) -> Registry:
    """A registry of plugin objects, for programs and tests that already have them."""
    return _registry([_Found(plugin.name, plugin) for plugin in plugins])


def installed(allowed: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Name, distribution and version of every installed plugin that is allowed, without importing any."""
    return [(point.name, *_distribution(point)) for _, points in sorted(_available(allowed).items()) for point in points]


def _available(allowed: Sequence[str] = ()) -> dict[str, list[EntryPoint]]:
    welcome = {_canonical(name) for name in allowed}
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if welcome and _canonical(_distribution(point)[0]) not in welcome:
            continue
        # The same distribution is listed twice when two paths lead to it.
        if all(_distribution(point) != _distribution(other) for other in found.get(point.name, [])):
            found.setdefault(point.name, []).append(point)
    return found


def _pick(name: str, available: Mapping[str, list[EntryPoint]]) -> EntryPoint:
    points = available.get(name)
    if not points:
        close = difflib.get_close_matches(name, available, n=1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise PluginError(
            f"no plugin {name!r} is installed",
            hint=f"{meant}Installed: {', '.join(sorted(available)) or 'none'}. Install it with: pip install rmqjobs-{name}",
        )
    if len(points) > 1:
        distributions = " and ".join(repr(_distribution(point)[0]) for point in points)
        raise PluginError(f"distributions {distributions} both have a plugin {name!r}", hint="Uninstall one of them")
    return points[0]


def _canonical(distribution: str) -> str:
    """The name in the form in which package indexes compare names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("", "")


def _load(point: EntryPoint) -> _Found:
    distribution, version = _distribution(point)
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:  # a module that calls sys.exit must not end our process
        raise PluginError(
            f"cannot be imported from {point.value!r}: {failure_of(error, traceback=False)}",
            plugin=point.name,
            distribution=distribution,
            hint="Run with --debug for the traceback. To run without it, name the others with --plugin or allowed_plugins",
        ) from error
    if isinstance(plugin, Plugin) and plugin.name != point.name:
        raise PluginError(
            f"its entry point is called {point.name!r} and its Plugin {plugin.name!r}",
            plugin=point.name,
            distribution=distribution,
            hint="Give both the same name",
        )
    return _Found(point.name, plugin, distribution, version)


def _registry(found: Sequence[_Found]) -> Registry:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = tuple(_register(manager, each) for each in found)
    handlers = _by_type(plugins)
    _check_queues(handlers.values())
    return Registry(
        plugins=plugins,
        handlers=handlers,
        before=_functions(manager.hook.rmqjobs_before_job),
        after=_functions(manager.hook.rmqjobs_after_job),
        verdict=_functions(manager.hook.rmqjobs_verdict),
        commands={name: command for group in manager.hook.rmqjobs_commands() for name, command in group.items()},
    )


def _register(manager: pluggy.PluginManager, found: _Found) -> InstalledPlugin:
    parts = [found.plugin, *(found.plugin.hooks if isinstance(found.plugin, Plugin) else ())]
    handlers: list[Handler] = []
    schedules: list[Schedule] = []
    for number, part in enumerate(parts):
        _check_markers(manager, part, found)
        try:
            manager.register(part, name=f"{found.name}#{number}")
            manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(
                f"a hook is misspelt or has the wrong parameters: {error}",
                plugin=found.name,
                distribution=found.distribution,
                hint=f"Hooks are: {', '.join(_hook_names())}",
            ) from None
        for implementation in manager.get_hookcallers(part) or ():
            if implementation.name == "rmqjobs_handlers":
                handlers += getattr(part, implementation.name)()
            if implementation.name == "rmqjobs_schedules":
                schedules += getattr(part, implementation.name)()
    return InstalledPlugin(found.name, found.distribution, found.version, tuple(handlers), tuple(schedules))


def _check_markers(manager: pluggy.PluginManager, part: object, found: _Found) -> None:
    """Refuses a function that is named like a hook but not marked as one: it would silently never be called."""
    for name in dir(part):
        if name.startswith("rmqjobs_") and manager.parse_hookimpl_opts(part, name) is None and callable(getattr(part, name)):
            raise PluginError(
                f"{name} is not marked as a hook",
                plugin=found.name,
                distribution=found.distribution,
                hint="Put @rmqjobs.hookimpl before it, or rename it",
            )


def _hook_names() -> list[str]:
    return [name for name in dir(hookspecs) if name.startswith("rmqjobs_")]


def _functions(caller: pluggy.HookCaller) -> tuple[Callable[..., Any], ...]:
    """The implementations as plain functions, to call with keywords; calling through pluggy would cost microseconds."""
    return tuple(_positional(each) for each in caller.get_hookimpls())


def _positional(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    function, names = implementation.function, implementation.argnames

    def call(**arguments: Any) -> Any:
        return function(*(arguments[name] for name in names))

    return call


def _by_type(plugins: Iterable[InstalledPlugin]) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    owners: dict[str, InstalledPlugin] = {}
    for plugin in plugins:
        for handler in plugin.handlers:
            _check_payload(handler, plugin)
            other = handlers.get(handler.job_type)
            if other is not None:
                owner = owners[handler.job_type]
                raise PluginError(
                    f"job type {handler.job_type!r} is handled by {handler.name} and, in plugin {owner.name!r} of"
                    f" distribution {owner.distribution!r}, by {other.name}",
                    plugin=plugin.name,
                    distribution=plugin.distribution,
                    hint="One job type has one handler: rename one, or load one plugin only with --plugin",
                )
            handlers[handler.job_type], owners[handler.job_type] = handler, plugin
    return handlers


def _check_payload(handler: Handler, plugin: InstalledPlugin) -> None:
    try:
        payloads.check_type(handler.payload_type)
    except ValueError as error:
        raise PluginError(str(error), plugin=plugin.name, distribution=plugin.distribution) from None


def _check_queues(handlers: Iterable[Handler]) -> None:
    """Refuses a queue whose handlers run in different pools, which differ in prefetch, or are not all singletons or none."""
    first: dict[str, Handler] = {}
    for handler in handlers:
        other = first.setdefault(handler.queue, handler)
        if (other.pool, other.singleton) != (handler.pool, handler.singleton):
            raise PluginError(
                f"queue {handler.queue!r} is shared by {other.name} (pool {other.pool}, singleton {other.singleton})"
                f" and {handler.name} (pool {handler.pool}, singleton {handler.singleton})",
                plugin=handler.plugin,
                hint="Give one of them another queue: slow work would hold up quick work",
            )
