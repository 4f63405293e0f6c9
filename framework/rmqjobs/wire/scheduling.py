"""The scheduler's messages: ticks, the token, and what comes to its mailbox. JSON, so that any language could take part.

The token is the scheduler's whole state. Fields that this version does not know are carried along: in a rolling deploy they
belong to the next version.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from rmqjobs.errors import MalformedMessage
from rmqjobs.schedule import Schedule
from rmqjobs.topology import Names
from rmqjobs.wire import headers as h
from rmqjobs.wire.jobs import Incoming, Message, text_of

FORMAT = 1
APP = "rmqjobs-scheduler"
BY_HAND = "!run"  # end of the id of a job that an operator runs beside the plan
# Thousands of schedules make a megabyte of JSON, written at every tick; deflated, it is a tenth of that.
PLAIN_BYTES, DEFLATE = 16 * 1024, "deflate"
MOST_BYTES = 64 * 2**20
TOKEN, BARRIER, HELLO, COMMAND = "rmqjobs.token", "rmqjobs.barrier", "rmqjobs.hello", "rmqjobs.command"

Status = Literal["started", "done", "dead"]


class Entry(BaseModel):
    """What the token knows of one schedule; the active scheduler changes it in place.

    Args:
        cursor: Every planned time up to here is settled.
        timing: Digest of the timing that the cursor belongs to.
        ticked: Planned time of the last tick that was published.
        late: How many seconds late that one was.
        paused: Whether an operator paused it; None when the schedule's own field decides.
        held: Whether it was paused when the token was written, for whatever reason.
        waiting: Planned time of the oldest published tick without a known success, when one is expected.
        waiting_from: When that tick was published: the wait begins no sooner.
        alarmed: Whether the alarm for it has been raised.
        outcome, outcome_for, outcome_at: What became of the last tick that was reported, which one it was, and when.
        claims: Planned times of ticks that a worker may have claimed, as in their ids, ascending.
    """

    model_config = ConfigDict(extra="allow")

    cursor: AwareDatetime
    timing: str = ""
    ticked: AwareDatetime | None = None
    late: float = 0.0
    paused: bool | None = None
    held: bool = False
    waiting: AwareDatetime | None = None
    waiting_from: AwareDatetime | None = None
    alarmed: bool = False
    outcome: str | None = None
    outcome_for: AwareDatetime | None = None
    outcome_at: AwareDatetime | None = None
    claims: list[str] = Field(default_factory=list)


class Token(BaseModel):
    """The scheduler's state: whoever holds it, unacknowledged, is active. Of two, the higher version wins.

    Args:
        format: Version of this format.
        version: How many times it was written; 0 is the offer of a scheduler that knows nothing.
        at: When it was written.
        by: By which scheduler.
        entries: By schedule, including schedules that this scheduler does not know.
        unread: Entries that this version cannot read, carried along.
        added: Definitions of schedules added at runtime.
    """

    model_config = ConfigDict(extra="allow")

    format: int = FORMAT
    version: int = 0
    at: AwareDatetime | None = None
    by: str = ""
    entries: dict[str, Entry] = Field(default_factory=dict)
    unread: dict[str, JsonValue] = Field(default_factory=dict)
    added: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Barrier:
    """Comes back to whoever sent it when everything before it has arrived."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Hello:
    """A scheduler on standby says that it is there."""

    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks the active scheduler to do."""

    verb: str
    arguments: Mapping[str, JsonValue]
    reply_to: str
    correlation_id: str | None
    by: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker reports about a tick's job."""

    schedule: str
    scheduled_for: datetime
    status: Status
    job_id: str
    reason: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether an operator ran it beside the plan."""
        return self.job_id.endswith(BY_HAND)


class _HelloBody(BaseModel):
    name: str


class _CommandBody(BaseModel):
    verb: str
    arguments: dict[str, JsonValue] = {}


_ANSWER: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def token(names: Names, state: Token) -> Message:
    """The token as a message to the scheduler's queue."""
    body, encoding = state.model_dump_json(exclude_defaults=True).encode(), None
    if len(body) > PLAIN_BYTES:
        body, encoding = zlib.compress(body, level=1), DEFLATE
    message_id = f"token-{state.version}"
    return Message("", names.scheduler, body, type=TOKEN, message_id=message_id, app_id=APP, content_encoding=encoding)


def barrier(names: Names, nonce: str) -> Message:
    """A message whose arrival means that everything before it has arrived."""
    return Message("", names.scheduler, b"{}", type=BARRIER, message_id=nonce, app_id=APP)


def hello(names: Names, name: str) -> Message:
    """What a scheduler on standby sends now and then."""
    return Message("", names.scheduler, to_json({"name": name}), type=HELLO, app_id=APP)


def command(verb: str, arguments: Mapping[str, JsonValue]) -> bytes:
    """The body of a command."""
    return to_json({"verb": verb, "arguments": dict(arguments)})


def answer(asked: Command, content: Mapping[str, Any]) -> Message:
    """What the asker gets: `{"ok": …}`, or `{"error": …, "code": …, "unknown": …}`."""
    return Message("", asked.reply_to, to_json(content), correlation_id=asked.correlation_id, app_id=APP)


def read_answer(body: bytes) -> dict[str, Any]:
    """An answer's content."""
    return _ANSWER.validate_json(body)


def tick_id(schedule: str, planned: datetime) -> str:
    """The job id of a tick: the same whichever scheduler publishes it, however often."""
    return f"{schedule}@{planned_text(planned)}"


def planned_text(planned: datetime) -> str:
    """A planned time as it is written in job ids."""
    return planned.isoformat().replace("+00:00", "Z")


def tick(
    names: Names,
    schedule: Schedule,
    planned: datetime,
    *,
    job_id: str,
    period_start: datetime | None,
    expires_at: datetime | None,
    reply_start: bool,
    mark: str | None,
    now: datetime,
) -> Message:
    """A tick's job. Its worker tells the scheduler's mailbox how it ends and, with `reply_start`, that it starts.

    The mark is another one each time the tick is published: of several publications, one runs. A job that is certain to be
    published only once has no mark.
    """
    headers: dict[str, Any] = {h.SCHEDULE: schedule.name, h.SCHEDULED_FOR: h.milliseconds(planned)}
    if mark is not None:
        headers[h.MARK] = mark
    if period_start is not None:
        headers[h.PERIOD_START] = h.milliseconds(period_start)
    if expires_at is not None:
        headers[h.EXPIRES_AT] = h.milliseconds(expires_at)
    if reply_start:
        headers[h.REPLY_START] = True
    return Message(
        names.jobs,
        schedule.type,
        to_json(dict(schedule.payload)),
        message_id=job_id,
        type=schedule.type,
        headers=headers,
        timestamp=int(now.timestamp()),
        reply_to=names.scheduler,
        app_id=APP,
    )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A token that this version cannot read: it may be the state, so it is not thrown away."""

    because: str


Content = Token | Unreadable | Barrier | Hello | Command | Report


def read(incoming: Incoming) -> Content:
    """A message of the scheduler's queue.

    Raises:
        MalformedMessage: It is not one of these; the error says why.
    """
    properties = incoming.properties
    kind = text_of(properties.type or "")
    try:
        match kind:
            case "rmqjobs.token":
                return _token_or_not(incoming)
            case "rmqjobs.barrier":
                return Barrier(text_of(properties.message_id or ""))
            case "rmqjobs.hello":
                return Hello(_HelloBody.model_validate_json(incoming.body).name)
            case "rmqjobs.command":
                return _command(incoming)
            case _:
                return _report(incoming)
    except Exception as error:  # noqa: BLE001 - whatever it is: one message must not stop one scheduler after the other
        raise MalformedMessage(
            f"a message of type {kind!r:.80} in the scheduler's queue cannot be read: {error!r:.500}"
        ) from None


def _token_or_not(incoming: Incoming) -> Token | Unreadable:
    try:
        return _token(incoming)
    except Exception as error:  # noqa: BLE001 - as in `read`
        return Unreadable(f"the token cannot be read: {error!r:.300}")


def _token(incoming: Incoming) -> Token:
    """Reads a token. Of a later format only the number is understood: such a token must be left to others."""
    deflated = incoming.properties.content_encoding == DEFLATE
    content = json.loads(zlib.decompressobj().decompress(incoming.body, MOST_BYTES) if deflated else incoming.body)
    later = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
    if isinstance(later, int) and later > FORMAT:
        return Token(format=later)
    entries: dict[str, Any] = {}
    unread = dict(content.pop("unread", {}))
    for name, entry in {**unread, **content.pop("entries", {})}.items():
        try:
            entries[name] = Entry.model_validate(entry)
        except ValidationError:
            unread[name] = entry
        else:
            unread.pop(name, None)
    return Token.model_validate({**content, "entries": entries, "unread": unread})


def _command(incoming: Incoming) -> Command:
    body, properties = _CommandBody.model_validate_json(incoming.body), incoming.properties
    correlation_id = text_of(properties.correlation_id) if properties.correlation_id else None
    by = text_of(properties.app_id or "somebody")
    return Command(body.verb, body.arguments, text_of(properties.reply_to or ""), correlation_id, by)


def _report(incoming: Incoming) -> Report:
    """A worker's reply; the id of the tick's job says which schedule and which planned time."""
    status = (incoming.properties.headers or {}).get(h.STATUS)
    job_id = text_of(incoming.properties.correlation_id or "")
    schedule, _, planned = job_id.partition("@")
    at = datetime.fromisoformat(planned.partition("!")[0])
    if status not in ("started", "done", "dead") or at.tzinfo is None:
        raise ValueError(f"status {status!r:.20} of job {job_id!r:.80}")
    content = json.loads(incoming.body) if status == "dead" else None
    reason = str(content.get("reason", "")) if isinstance(content, dict) else ""
    return Report(schedule, at.astimezone(UTC), status, job_id, reason)
