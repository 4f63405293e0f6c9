"""All schedules of one scheduler: from plugins, from `rmqjobs.toml`, and added at runtime; checked against the handlers."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json, to_jsonable_python

from rmqjobs.errors import ConfigurationError, InvalidPayload, MalformedMessage, ScheduleError
from rmqjobs.job import Handler
from rmqjobs.plugins import Registry
from rmqjobs.schedule import Overlap, Schedule, schedule_of, without_prefixes
from rmqjobs.settings import OVERRIDES, SCHEDULES
from rmqjobs.timetable import Timetable

_KINDS = ("cron", "every", "at")


class Origin(StrEnum):
    """Where a schedule comes from."""

    PLUGIN = "plugin"
    FILE = "file"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True)
class Planned:
    """A schedule that can tick.

    Args:
        schedule: What it says.
        timetable: When it ticks.
        origin: Where it comes from.
        overlap: The overlap that holds: the schedule's own, or the default for its handler.
        overridden: Names of the fields that the file changed.
    """

    schedule: Schedule
    timetable: Timetable
    origin: Origin
    overlap: Overlap
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleFile:
    """The schedules and overrides of a TOML file.

    Args:
        name: Its path, for messages.
        text: Its text, for line numbers.
        schedules, overrides: Its tables, by schedule.
    """

    name: str = ""
    text: str = ""
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def where(self, table: str, schedule: str) -> str:
        """File and line of a schedule's table."""
        name = re.escape(schedule)
        heads = (rf"^\s*\[\s*{table}\s*\.\s*[\"']?{name}[\"']?\s*\]", rf"^\s*(?:{table}\s*\.\s*)?[\"']?{name}[\"']?\s*[.=]")
        lines = self.text.splitlines()
        found = (number for head in heads for number, line in enumerate(lines, start=1) if re.match(head, line))
        return f"{self.name}, line {next(found, 1)}"


class Catalogue:
    """Schedules by name, none twice.

    Args:
        registry: The plugins' handlers and schedules.
        file: What operators wrote.

    Raises:
        ScheduleError: Some cannot be used; the message has a line for each.
    """

    def __init__(self, registry: Registry, file: ScheduleFile | None = None) -> None:
        self._registry, file = registry, file or ScheduleFile()
        self._planned: dict[str, Planned] = {}
        problems: list[ScheduleError] = []
        for schedule, origin, overridden in _declared(registry, file, problems):
            with _gathered(problems):
                self._put(schedule, origin, overridden)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            listed = "\n  ".join(map(str, problems))
            raise ScheduleError(problems[0].schedule, f"and others cannot be used:\n  {listed}")

    def __iter__(self) -> Iterator[Planned]:
        return iter(self._planned.values())

    def __len__(self) -> int:
        return len(self._planned)

    def declared(self) -> Catalogue:
        """The same, without schedules added at runtime."""
        other = copy(self)
        vars(other)["_planned"] = {name: each for name, each in self._planned.items() if each.origin is not Origin.RUNTIME}
        return other

    def added(self) -> list[Planned]:
        """Schedules added at runtime."""
        return [each for each in self if each.origin is Origin.RUNTIME]

    def get(self, name: str) -> Planned | None:
        """The schedule of that name."""
        return self._planned.get(name)

    def find(self, name: str) -> Planned:
        """The schedule of that name; raises `ScheduleError`, which names the nearest one."""
        planned = self._planned.get(name)
        if planned is None:
            error = ScheduleError(name, "there is no schedule of this name", hint=_nearest(name, self._planned))
            error.unknown = True
            raise error
        return planned

    def add(self, fields: Mapping[str, JsonValue], *, trusted: bool = False) -> Planned:
        """Adds a schedule at runtime.

        Args:
            fields: The fields of a `Schedule`.
            trusted: Whether it was checked when it was first added: then its handler need not be known here.

        Raises:
            ScheduleError: It cannot be used, or its name is taken.
        """
        return self._put(schedule_of(fields), Origin.RUNTIME, (), trusted=trusted)

    def remove(self, name: str) -> None:
        """Takes out a schedule that was added at runtime; raises `ScheduleError` for others."""
        planned = self.find(name)
        if planned.origin is not Origin.RUNTIME:
            place = planned.schedule.where or f"a {planned.origin}"
            hint = f"Remove it from {place}, or stop it with: rmqjobs schedules pause {name}"
            raise ScheduleError(name, f"it comes from a {planned.origin} and would come back", hint=hint)
        del self._planned[name]

    def _put(self, schedule: Schedule, origin: Origin, overridden: tuple[str, ...], *, trusted: bool = False) -> Planned:
        other = self._planned.get(schedule.name)
        if other is not None:
            place = f" ({other.schedule.where})" if other.schedule.where else ""
            hint = "Rename one of them" + (
                f"; to change a plugin's schedule from the file, write [{OVERRIDES}.{_quoted(schedule.name)}]"
                if origin is Origin.FILE and other.origin is Origin.PLUGIN
                else ""
            )
            raise ScheduleError(
                schedule.name,
                f"there is a schedule of this name already (origin: {other.origin}){place}",
                where=schedule.where,
                hint=hint,
            )
        handler = self._registry.handlers.get(schedule.type)
        if handler is None and not trusted:
            raise ScheduleError(
                schedule.name,
                f"no plugin here handles its job type {schedule.type!r}",
                where=schedule.where,
                hint=_nearest(schedule.type, self._registry.handlers) + " Or start the scheduler with the plugin that does",
            )
        overlap = _overlap(schedule, handler)
        if handler is not None:
            _check_payload(schedule, handler)
        planned = Planned(schedule, Timetable(schedule), origin, overlap, overridden)
        self._planned[schedule.name] = planned
        return planned


def read_file(path: Path) -> ScheduleFile:
    """The schedules of a TOML file; none when there is no such file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        text = path.read_text()
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return ScheduleFile(str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("--config", f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("--config", f"{path} is not TOML: {error}") from None
    found = {}
    for name in (SCHEDULES, OVERRIDES):
        found[name] = tables.get(name, {})
        if not isinstance(found[name], dict) or not all(isinstance(each, dict) for each in found[name].values()):
            raise ConfigurationError(
                str(path), f"{name} is not a table of schedules", f"Write [{name}.nightly] and fields below it"
            )
    return ScheduleFile(str(path), text, found[SCHEDULES], found[OVERRIDES])


def _declared(
    registry: Registry, file: ScheduleFile, problems: list[ScheduleError]
) -> Iterator[tuple[Schedule, Origin, tuple[str, ...]]]:
    """All schedules, those of plugins first; the error of one that cannot be used is added to the problems."""
    of_plugins = {schedule.name: schedule for plugin in registry.plugins for schedule in plugin.schedules}
    for plugin in registry.plugins:
        for schedule in plugin.schedules:
            changes = file.overrides.get(schedule.name, {})
            with _gathered(problems):
                yield _override(schedule, changes, file.where(OVERRIDES, schedule.name)), Origin.PLUGIN, tuple(changes)
    for name in file.overrides.keys() - of_plugins.keys():
        where, hint = file.where(OVERRIDES, name), _nearest(name, of_plugins)
        problems.append(ScheduleError(name, "no loaded plugin has a schedule of this name", where=where, hint=hint))
    for name, fields in file.schedules.items():
        with _gathered(problems):
            json_fields = {**fields, "payload": to_jsonable_python(fields.get("payload", {})), "name": name}
            yield schedule_of(json_fields, where=file.where(SCHEDULES, name)), Origin.FILE, ()


@contextmanager
def _gathered(problems: list[ScheduleError]) -> Iterator[None]:
    try:
        yield
    except ScheduleError as error:
        problems.append(error)


def _override(schedule: Schedule, changes: Mapping[str, Any], where: str) -> Schedule:
    if not changes:
        return schedule
    fixed = {"name", "type"} & set(changes)
    if fixed:
        raise ScheduleError(schedule.name, f"{' and '.join(fixed)} cannot be changed by an override", where=where)
    fields, changes = schedule.model_dump(), _said(changes, schedule.name, where)
    if set(_KINDS) & set(changes):
        fields |= dict.fromkeys(_KINDS)
    fields |= changes
    return schedule_of({**fields, "payload": to_jsonable_python(fields["payload"])}, where=where)


def _said(changes: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    try:
        return without_prefixes(changes)
    except ValueError as error:
        raise ScheduleError(name, str(error), where=where) from None


def _overlap(schedule: Schedule, handler: Handler | None) -> Overlap:
    """The overlap that holds. A handler unknown here (of a runtime schedule, in a rolling deploy) was checked elsewhere."""
    singleton = handler is None or handler.singleton
    if schedule.overlap is None:
        return Overlap.SKIP if singleton and handler else Overlap.ALLOW
    if schedule.overlap is not Overlap.ALLOW and not singleton and handler:
        raise ScheduleError(
            schedule.name,
            f"overlap = {schedule.overlap.value!r} needs a handler that never runs twice at once, and {handler.name} may",
            where=schedule.where,
            hint="Make it @plugin.handler(singleton=True), or write overlap = 'allow'",
        )
    return schedule.overlap


def _check_payload(schedule: Schedule, handler: Handler) -> None:
    try:
        handler.validate(to_json(dict(schedule.payload)))
    except (InvalidPayload, MalformedMessage) as error:
        raise ScheduleError(schedule.name, f"its payload is {error}", where=schedule.where) from None
    model = handler.payload_type
    known = {*model.model_fields, *(field.alias for field in model.model_fields.values() if field.alias)}
    unknown = sorted(schedule.payload.keys() - known)
    if unknown and model.model_config.get("extra") != "allow":
        # A worker would ignore them, but whoever wrote the schedule has misspelt one.
        problem = f"its payload has {', '.join(map(repr, unknown))}, which {schedule.type!r} does not know"
        raise ScheduleError(schedule.name, problem, where=schedule.where, hint=_nearest(unknown[0], known))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names[:20]) or 'none'}"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
