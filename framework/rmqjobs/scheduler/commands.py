"""What the active scheduler can be asked to do through its mailbox: one function for each verb of `rmqjobs schedules`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json

from rmqjobs.errors import RmqJobsError, ScheduleError
from rmqjobs.events import EventKind
from rmqjobs.schedule import schedule_of
from rmqjobs.scheduler.active import Active
from rmqjobs.scheduler.catalogue import Origin, Planned
from rmqjobs.scheduler.chronicle import Chronicle
from rmqjobs.timetable import Timetable
from rmqjobs.wire.scheduling import Command

MOST_BYTES = 16 * 1024  # all of them travel in the token, at every tick
MOST_ADDED = 500
_Do = Callable[["Commands", Mapping[str, JsonValue], str], Awaitable[Any]]


class Commands:
    """Carries out commands on the active scheduler's state.

    Args:
        active: The active scheduler.
        chronicle: Records who did what.
        now: The time of day, aware.
    """

    def __init__(self, active: Active, chronicle: Chronicle, now: Callable[[], datetime]) -> None:
        self._active, self._chronicle, self._now = active, chronicle, now

    async def carry_out(self, command: Command) -> dict[str, Any]:
        """Carries out a command; returns `{"ok": …}`, or `{"error": …, "code": …}`. By then, changes are in the token.

        Raises:
            BrokerError: The connection is lost.
        """
        do = _VERBS.get(command.verb)
        if do is None:
            verbs = ", ".join(_VERBS)
            return {"error": f"this scheduler does not know {command.verb!r}; it knows {verbs}", "code": RmqJobsError.code}
        try:
            result = await do(self, command.arguments, command.by)
        except ScheduleError as error:
            return {"error": str(error), "code": error.code, "unknown": error.unknown}
        return {"ok": result}

    async def list(self, _arguments: Mapping[str, JsonValue], _by: str) -> dict[str, Any]:
        """All schedules, and who is active."""
        token = self._active.token
        known = {planned.schedule.name for planned in self._active.catalogue}
        return {
            "active": self._active.name,
            "version": token.version,
            "schedules": [self._describe(planned) for planned in self._active.catalogue],
            # In the token, but unknown to this scheduler: of another set of plugins, or left over.
            "others": sorted(({*token.entries} | {*token.added}) - known),
        }

    async def show(self, arguments: Mapping[str, JsonValue], _by: str) -> dict[str, Any]:
        """One schedule with its definition and its next ticks."""
        planned = self._find(arguments)
        upcoming, after = [], self._now()
        for _ in range(5):
            time = planned.timetable.after(after)
            if time is None:
                break
            upcoming.append(time.isoformat())
            after = time
        definition = planned.schedule.model_dump(mode="json", exclude={"ping"}) | {"ping": bool(planned.schedule.ping)}
        return self._describe(planned) | {"definition": definition, "upcoming": upcoming, "overridden": planned.overridden}

    async def run(self, arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        """Publishes a job of it now."""
        planned = self._find(arguments)
        try:
            job_id = await self._active.run_now(planned)
        except RmqJobsError as error:
            raise ScheduleError(planned.schedule.name, f"its job was not published: {error}") from error
        self._chronicle.tell(EventKind.TICKED, planned.schedule, job_id=job_id, by=by, because="run by hand")
        return {"job_id": job_id, "type": planned.schedule.type}

    async def pause(self, arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        """Stops its ticks."""
        return await self._set_paused(arguments, by, paused=True)

    async def resume(self, arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        """Lets it tick again."""
        return await self._set_paused(arguments, by, paused=False)

    async def add(self, arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        """Adds a schedule to the state."""
        fields = {name: value for name, value in arguments.items() if value is not None}
        token, name = self._active.token, str(fields.get("name", ""))
        if name in token.added:
            raise ScheduleError(name, "there is a schedule of this name already (origin: runtime)", hint="Remove it first")
        table = Timetable(schedule_of(fields))
        if table.comes and table.after(self._now()) is None:
            raise ScheduleError(name, "it would never tick: its time has passed")
        size = len(to_json(fields))
        if size > MOST_BYTES or len(token.added) >= MOST_ADDED:
            limits = f"the limits at runtime are {MOST_BYTES:,} bytes each and {MOST_ADDED:,} schedules"
            raise ScheduleError(name, f"it has {size:,} bytes, and {len(token.added):,} were added before: {limits}")
        planned = self._active.catalogue.add(fields)
        token.added[name] = planned.schedule.model_dump(mode="json", exclude_defaults=True)
        self._active.take(planned)
        await self._active.write()
        self._chronicle.tell(EventKind.ADDED, planned.schedule, by=by, when=planned.schedule.when)
        return self._describe(planned)

    async def remove(self, arguments: Mapping[str, JsonValue], by: str) -> dict[str, Any]:
        """Removes a schedule from the state."""
        name, token = str(arguments.get("name", "")), self._active.token
        planned = self._active.catalogue.get(name)
        if planned is not None and name in token.added and planned.origin is not Origin.RUNTIME:
            del token.added[name]  # it was held back by a clash: the one that ticks stays
        else:
            if planned is not None:
                self._active.catalogue.remove(name)
            elif name not in token.entries and name not in token.added and name not in token.unread:
                self._active.catalogue.find(name)  # raises, and names the nearest one
            self._active.forget(name)
            for part in (token.added, token.unread):
                part.pop(name, None)
        await self._active.write()
        self._chronicle.tell(EventKind.REMOVED, planned.schedule if planned else None, by=by, removed=name)
        return {"removed": name}

    async def _set_paused(self, arguments: Mapping[str, JsonValue], by: str, *, paused: bool) -> dict[str, Any]:
        planned = self._find(arguments)
        was = self._active.is_paused(planned)
        if was is not paused:
            self._active.set_paused(planned, paused=paused)
            await self._active.write()
            self._chronicle.tell(EventKind.PAUSED if paused else EventKind.RESUMED, planned.schedule, by=by)
        return self._describe(planned) | {"changed": was is not paused}

    def _find(self, arguments: Mapping[str, JsonValue]) -> Planned:
        return self._active.catalogue.find(str(arguments.get("name", "")))

    def _describe(self, planned: Planned) -> dict[str, Any]:
        schedule, entry = planned.schedule, self._active.entry(planned)
        paused = self._active.is_paused(planned)
        upcoming = None if paused else planned.timetable.after(max(entry.cursor, self._now() - schedule.jitter))
        return {
            "name": schedule.name,
            "type": schedule.type,
            "when": schedule.when,
            "words": schedule.in_words(),
            "tz": schedule.tz,
            "origin": planned.origin.value,
            "where": schedule.where,
            "state": "paused" if paused else "overdue" if entry.alarmed else "on" if upcoming else "ended",
            "next": upcoming and upcoming.isoformat(),
            "last": entry.ticked and entry.ticked.isoformat(),
            "late_seconds": round(entry.late, 3) if entry.ticked else None,
            "outcome": entry.outcome if entry.outcome_for == entry.ticked else "waiting" if entry.ticked else None,
            "outcome_at": entry.outcome_at and entry.outcome_at.isoformat(),
            "misfire": schedule.misfire.value,
            "overlap": planned.overlap.value,
            "waiting_since": entry.waiting and entry.waiting.isoformat(),
        }


_VERBS: Mapping[str, _Do] = {
    "list": Commands.list,
    "show": Commands.show,
    "run": Commands.run,
    "pause": Commands.pause,
    "resume": Commands.resume,
    "add": Commands.add,
    "remove": Commands.remove,
}
