"""A schedule: which job, when, and what happens when a tick cannot come as planned. Floor 2: a validated, frozen value.

The fields are the same in a plugin, in `rmqjobs.toml` and on the command line; times are durations and aware instants.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from rmqjobs import cron
from rmqjobs.errors import ScheduleError
from rmqjobs.job import check_job_type
from rmqjobs.settings import Duration

SHORTEST = timedelta(seconds=1)
_NAME = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
LONGEST = timedelta(days=3660)
YEARS = range(1971, 9000)  # with room to calculate beyond both ends


class Misfire(StrEnum):
    """What happens to ticks whose time passed, by more than the grace, while nobody could tick."""

    SKIP = "skip"  # they are only recorded
    ONCE = "once"  # one run makes up for all of them
    ALL = "all"  # each of them runs, at most the newest `misfire_limit`


class Overlap(StrEnum):
    """What a tick does while the run of an earlier one has not ended."""

    SKIP = "skip"  # it is dropped when the next one comes
    QUEUE = "queue"  # it waits its turn
    ALLOW = "allow"  # it runs beside it


def _check_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ", such as 'Europe/Berlin' or 'UTC'"
        raise ValueError(f"{name!r} is not an IANA time zone{meant}") from None
    return name


def _check_ping(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii() and url.isprintable()
        )
    except ValueError:  # wrong brackets, or a port that is not a number
        usable = False
    if not usable or " " in url:
        raise ValueError("it must be an http or https URL, such as https://host/uuid")
    if parts.username or parts.password:
        raise ValueError("it must not contain a user or password; use a secret path")
    return url


def _check_length(duration: timedelta) -> timedelta:
    if duration > LONGEST:
        raise ValueError(f"{short(duration)} is too long: the limit is {short(LONGEST)}")
    return duration


def _check_year(instant: datetime) -> datetime:
    if instant.year not in YEARS:
        raise ValueError(f"the year must be from {YEARS[0]} to {YEARS[-1]}")
    return instant


Span = Annotated[Duration, AfterValidator(_check_length)]
Positive = Annotated[Span, Field(gt=timedelta(0))]
Instant = Annotated[datetime, AfterValidator(_check_year)]


class Schedule(BaseModel):
    """When a job of one type is published, again and again.

    Exactly one of `cron`, `every` and `at` says when. A naive instant is in the zone `tz`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(pattern=_NAME, description="Unique; lower-case letters, digits, `_`, `-` and `.`, 100 at most")
    type: Annotated[str, AfterValidator(check_job_type)] = Field(description="Job type of its ticks")
    payload: Mapping[str, JsonValue] = Field(default={}, description="Payload of its ticks")
    cron: str | None = Field(None, description="Five cron fields, or `@daily` and friends; `H` spreads load: `H H * * *`")
    every: Annotated[Span, Field(ge=SHORTEST)] | None = Field(
        None, description="An interval of real time, counted from `start`, or from 1970-01-01 UTC"
    )
    at: Instant | None = Field(None, description="Once, at this instant")
    tz: Annotated[str, AfterValidator(_check_zone)] = Field("UTC", description="IANA time zone of `cron` and of naive instants")
    misfire: Misfire = Field(
        Misfire.ONCE, description="Ticks missed by more than the grace: `skip` them, make up for them `once`, run `all`"
    )
    misfire_limit: int = Field(100, ge=1, le=10_000, description="With `all`: at most this many run, the newest ones")
    misfire_grace: Annotated[Span, Field(ge=SHORTEST)] = Field(
        timedelta(minutes=1), description="A tick that is at most this late counts as late, not as missed"
    )
    overlap: Overlap | None = Field(
        None, description="`skip`, `queue` (both need a singleton handler) or `allow`; by default `skip` for singletons"
    )
    jitter: Span = Field(timedelta(0), description="Each tick is published up to this much later, by a fixed delay of its own")
    expires: Positive | None = Field(None, description="A tick's job that has not started this long after its time is dropped")
    start: Instant | None = Field(None, description="No ticks before this instant")
    end: Instant | None = Field(None, description="No ticks after this instant")
    paused: bool = Field(default=False, description="No ticks until it is resumed")
    expected_by: Positive | None = Field(None, description="Alarm when a tick's job has not succeeded this long after its time")
    ping: Annotated[str, AfterValidator(_check_ping)] | None = Field(
        None, repr=False, description="URL called on success; with `/start` or `/fail` appended on those events"
    )
    where: str = Field("", exclude=True, repr=False, description="Where it is written: file and line")

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, fields: Any) -> Any:
        return without_prefixes(fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kinds = [name for name in ("cron", "every", "at") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of cron, every and at, not {' and '.join(kinds) or 'none'}")
        if self.cron is not None:
            cron.read(self.cron, self.name)
        for name in ("at", "start", "end"):
            instant: datetime | None = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                object.__setattr__(self, name, instant.replace(tzinfo=ZoneInfo(self.tz)))
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"its start {self.start.isoformat()} is not before its end {self.end.isoformat()}")
        if self.every is not None and self.jitter >= self.every:
            raise ValueError(f"a jitter of {short(self.jitter)} is not less than the interval of {short(self.every)}")
        return self

    @property
    def timing(self) -> str:
        """A digest of everything that decides the planned times: ticks of another timing do not count as missed."""
        instants = [each and each.astimezone(UTC).isoformat() for each in (self.at, self.start, self.end)]
        every = self.every and self.every.total_seconds()
        return sha256(repr((self.cron, every, self.tz, instants)).encode()).hexdigest()[:8]

    @property
    def when(self) -> str:
        """The expression, interval or instant as people write it."""
        if self.cron is not None:
            return self.cron
        return f"every {short(self.every)}" if self.every is not None else f"at {self.at:%Y-%m-%d %H:%M:%S%z}"

    def in_words(self) -> str:
        """When it ticks, in English."""
        return cron.in_words(self.cron, self.name) if self.cron is not None else self.when


def without_prefixes(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, with prefixes of other systems in `cron` moved to fields of ours: `@every 1h`, `TZ=Europe/Berlin 0 3 * * *`.

    Raises:
        ValueError: A prefix says one thing, and the field another.
    """
    text = fields.get("cron")
    prefixed = cron.unprefixed(text) if isinstance(text, str) else None
    if prefixed is None or prefixed.text == text:
        return fields
    said = {"tz": prefixed.tz, "every": prefixed.every}
    for field, value in said.items():
        if value is not None and fields.get(field) not in (None, value, Schedule.model_fields[field].default):
            raise ValueError(f"{field} = {fields[field]!r} is given, and cron = {text!r} says {value!r}. Give one of them")
    return {**fields, "cron": prefixed.text or None, **{field: value for field, value in said.items() if value is not None}}


def schedule_of(fields: Mapping[str, Any], *, where: str = "") -> Schedule:
    """The schedule that unchecked values make.

    Raises:
        ScheduleError: They do not make one; the message names each wrong field, its value and what is wrong with it.
    """
    try:
        return Schedule.model_validate({**fields, "where": where})
    except ValidationError as error:
        raise ScheduleError(str(fields.get("name", "")), "; ".join(map(_problem, error.errors())), where=where) from None


def short(duration: timedelta) -> str:
    """A duration as people write it: `1d12h`, `15m`, `2.5s`."""
    minutes, seconds = divmod(duration / timedelta(seconds=1), 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    parts = [f"{days}d" if days else "", f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    return "".join(parts) + (f"{seconds:g}s" if seconds or not any(parts) else "")


def _problem(detail: Mapping[str, Any]) -> str:
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        known = [name for name in Schedule.model_fields if name not in ("name", "where")]
        close = difflib.get_close_matches(place, known, n=1)
        return f"{place}: there is no such field" + (
            f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
        )
    problem = str(detail["msg"]).removeprefix("Value error, ")
    if not place or detail["type"] == "missing":
        return f"{place}: {problem}".removeprefix(": ")
    value = "***" if place == "ping" else f"{detail['input']!r:.80}"
    return f"{place} = {value}: {problem}"
