"""Settings: mappings in (flags, environment, file), frozen validated values out. Floor 1: reads nothing by itself.

Order: flag, then environment (`RMQJOBS_…`), then file (`rmqjobs.toml`), then default. A value that cannot be used raises a
`ConfigurationError` that names where it came from.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pytimeparse.timeparse import timeparse

from rmqjobs.errors import ConfigurationError

ENVIRONMENT_PREFIX = "RMQJOBS_"
_NUMBER = re.compile(r"\d+(\.\d+)?")
# Tables of `rmqjobs.toml` that are not settings: the scheduler reads them.
SCHEDULES, OVERRIDES = "schedules", "overrides"
_EITHER = {"url", "url_file"}  # two ways to say the same thing
AUTO: Final = "auto"
Auto = Literal["auto"]
DEFAULT_URL = "amqp://guest:guest@localhost:5672/"


def parse_duration(value: object) -> object:
    """`"25s"`, `"1h30m"` or a number of seconds as a `timedelta`; anything else is left for pydantic (ISO 8601)."""
    if not isinstance(value, str):
        return value
    milliseconds = value[:-2] if value.endswith("ms") else ""
    if _NUMBER.fullmatch(milliseconds):
        seconds: float | None = float(milliseconds) / 1000
    else:
        seconds = float(value) if _NUMBER.fullmatch(value) else timeparse(value)
    if seconds is None and value.startswith(("P", "-P")):
        return value  # ISO 8601, for pydantic
    try:
        return timedelta(seconds=seconds)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        raise ValueError(f"{value!r} is not a duration: write it as 500ms, 25s, 1h30m, 7d or in seconds") from None


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of the broker."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """How an `amqps` connection is verified; by default against the system's authorities."""

    ca_file: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """A client context; raises `ConfigurationError` when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.certificate, self.key)))
            raise ConfigurationError("url", f"TLS files {files}: {error}", "Give readable PEM files") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and who we log in as. Its text form never shows the password."""

    endpoints: tuple[Endpoint, ...]
    vhost: str
    user: str
    password: str = field(repr=False)
    tls: Tls | None = None
    source: str = "url"  # the setting it comes from

    @classmethod
    def from_url(cls, url: str, source: str = "url") -> Broker:
        """Reads `amqp[s]://user:password@host[:port][,host2[:port]]/vhost[?cafile=…&certfile=…&keyfile=…&verify=no]`.

        Raises:
            ConfigurationError: The URL cannot be used; the message masks the password.
        """
        url = url.strip()  # a secret that was written with echo ends in a line break
        # Not urlsplit: newer Pythons refuse a list of hosts with an IPv6 address in it.
        parts = _URL.fullmatch(url)
        if parts is None or not url.isprintable():
            raise ConfigurationError(source, f"{mask_url(url)!r} is not an AMQP URL", _URL_HINT)
        secure, hosts = parts["scheme"] == "amqps", parts["hosts"] or "localhost"
        user, _, password = (parts["credentials"] or "").partition(":")
        return cls(
            endpoints=tuple(_endpoint(host, 5671 if secure else 5672, url, source) for host in hosts.split(",")),
            vhost=unquote(parts["vhost"] or "") or "/",
            user=unquote(user) or "guest",
            password=unquote(password) if user else "guest",
            tls=_tls(parts["query"] or "", url, source, secure=secure),
            source=source,
        )

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        vhost = "/" if self.vhost == "/" else f"/{self.vhost}"
        return f"{scheme}://{self.user}:***@{','.join(map(str, self.endpoints))}{vhost}"


class Settings(BaseModel):
    """All settings of one process. Durations are given as `25s`, `1h30m`, seconds or ISO 8601."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(DEFAULT_URL, repr=False, description="The broker: amqp[s]://user:password@host[:port][,host2]/vhost")
    url_file: str | None = Field(
        None, description="A file that holds the URL instead, read at each connection: for a password that changes"
    )
    management_url: str | None = Field(
        None, repr=False, description="The management API, to find every dead-letter queue: http://user:password@host:15672"
    )
    prefix: str = Field("rmqjobs", description="First part of every exchange and queue name", pattern=r"^[a-z0-9_.-]+$")
    declare: bool = Field(
        True, description="Whether to declare the topology; false where an operator does it, with: rmqjobs topology apply"
    )
    plugins: tuple[str, ...] = Field((), description="Plugins to load; all installed ones when empty")
    allowed_plugins: tuple[str, ...] = Field(
        (), description="Distributions whose plugins may be imported; all when empty. In the environment, separated by commas"
    )
    concurrency: int = Field(100, ge=1, le=10_000, description="Async handlers running at once in a worker")
    threads: Annotated[int, Field(ge=1, le=1_000)] | Auto = Field(
        AUTO, description="Thread handlers running at once in a worker; auto: ten for each processor, 20 to 80"
    )
    processes: Annotated[int, Field(ge=1, le=256)] | Auto = Field(
        1, description="Whole workers under one parent; auto: one for each processor"
    )
    children: Annotated[int, Field(ge=1, le=256)] | Auto = Field(
        AUTO, description="Process handlers running at once in a worker; auto: one for each processor"
    )
    prefetch_factor: float = Field(
        2.0,
        ge=1,
        le=100,
        description="Jobs a worker holds per async or thread slot (1 per process slot); more when jobs are short",
    )
    grace: Duration = Field(timedelta(seconds=25), description="How long a draining worker waits for running jobs")
    heartbeat: Duration = Field(
        timedelta(seconds=20),
        ge=timedelta(seconds=1),
        le=timedelta(seconds=65_535),
        description="AMQP heartbeat; a dead peer is noticed within three heartbeats, a frozen scheduler within one",
    )
    consumer_timeout: Duration = Field(
        timedelta(minutes=30),
        description="RabbitMQ's own consumer_timeout; it matters only before 3.12, since then consumers set their own",
    )
    publish_timeout: Duration = Field(timedelta(seconds=5), description="Deadline of one publish, reconnecting included")
    max_body: int = Field(16 * 2**20, ge=1, description="Largest message body in bytes, published or accepted")
    journal_interval: Duration = Field(
        timedelta(milliseconds=500), description="How often workers and publishers write to the journal"
    )
    journal_published: bool = Field(True, description="Whether publishers write to the journal which jobs they published")
    beat_interval: Duration = Field(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        description="How often workers and schedulers write to the journal how they are",
    )
    recycle_after: int = Field(10_000, ge=1, description="Jobs a child process runs before it is replaced")
    recycle_above: int = Field(1_024, ge=1, description="Megabytes of memory a child may have used before it is replaced")
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="Where worker and scheduler serve /metrics, /livez and /readyz; 0 picks a free port"
    )
    metrics_host: str = Field("0.0.0.0", description="The address to serve them on; 127.0.0.1 for this machine only")  # noqa: S104
    web_host: str = Field(
        "127.0.0.1", description="The address that rmqjobs web listens on; any but this machine's needs web_token"
    )
    web_port: int = Field(8088, ge=0, le=65_535, description="The port that rmqjobs web listens on; 0 picks a free one")
    web_token: str | None = Field(
        None, min_length=16, repr=False, description="What requests to rmqjobs web have to bring, 16 characters or more"
    )
    web_model: str | None = Field(None, description="The file of the read model; by default one in the user's cache folder")
    web_model_megabytes: int = Field(1_000, ge=10, description="How large that file may become; the oldest jobs go first")
    scheduler_missing_after: Duration = Field(
        timedelta(seconds=30), description="Workers warn when schedules exist and no scheduler is connected for this long"
    )
    event_loop: str = Field(
        "auto",
        pattern="^(auto|asyncio|uvloop)$",
        description="What a worker runs on: asyncio, uvloop, or auto (uvloop if it is installed)",
    )
    log_format: str = Field(
        "auto", pattern="^(auto|console|json)$", description="console, json, or auto (console on a terminal)"
    )

    @property
    def broker(self) -> Broker:
        """The parsed URL, as it is now."""
        if self.url_file is None:
            return Broker.from_url(self.url)
        try:
            return Broker.from_url(Path(self.url_file).read_text(), f"url_file {self.url_file}")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"url_file {self.url_file}", f"it cannot be read: {why}", "Put the URL into it") from None

    def as_environ(self) -> dict[str, str]:
        """These settings as environment variables, for another process."""
        texts: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, timedelta):
                texts[environment_name(name)] = str(value.total_seconds())
            elif value is not None and not (name == "url" and self.url_file):
                texts[environment_name(name)] = ",".join(value) if isinstance(value, tuple) else str(value)
        return texts

    @classmethod
    def load(
        cls,
        *,
        flags: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Mapping[str, Any] | None = None,
        file_name: str = "rmqjobs.toml",
    ) -> Settings:
        """Merges the sources; flags whose value is None count as not given.

        Raises:
            ConfigurationError: A value cannot be used, or a name does not exist; the message says where it is set.
        """
        sources = (
            (file_name, {name: value for name, value in (file or {}).items() if name not in (SCHEDULES, OVERRIDES)}),
            ("environment", _from_environment(environ or {})),
            ("option", {name: value for name, value in (flags or {}).items() if value is not None}),
        )
        merged: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for source, values in sources:
            if values.keys() >= _EITHER:
                raise ConfigurationError(_place(source, "url"), "url_file is given too", "Give one of them")
            if values.keys() & _EITHER:  # the stronger source replaces both
                merged = {name: value for name, value in merged.items() if name not in _EITHER}
            merged.update(values)
            origin.update(dict.fromkeys(values, source))
        try:
            settings = cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            raise ConfigurationError(*_explain(name, origin.get(name, ""), first)) from None
        if settings.broker.tls is not None:
            settings.broker.tls.context()  # a wrong URL or file is found at start, not at the first connection
        return settings


def environment_name(setting: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + setting.upper()


def mask_url(url: str) -> str:
    """The URL with its password masked, for messages and logs. Text that is not a URL is masked whole: it may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if url else ""
    credentials, at, tail = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon}{'***' if colon else ''}{at}{tail}"


_URL = re.compile(r"(?P<scheme>amqps?)://((?P<credentials>[^/?]*)@)?(?P<hosts>[^/?@]*)(/(?P<vhost>[^?]*))?(\?(?P<query>.*))?")
_HOST = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]\s]+))(:(?P<port>[^:]*))?")
_OPTIONS_HINT = "The options are cafile, certfile, keyfile and verify, all for amqps://"
_URL_CHARACTERS = "special characters of a password as %XX, an IPv6 address in brackets"
_URL_HINT = "Write it as amqp://user:password@host:5672/vhost, or amqps:// for TLS"


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: environ[environment_name(name)].strip() for name in Settings.model_fields if environment_name(name) in environ
    }
    for setting in ("plugins", "allowed_plugins"):
        if isinstance(values.get(setting), str):
            values[setting] = [name.strip() for name in values[setting].split(",") if name.strip()]
    return values


def _place(source: str, name: str) -> str:
    places = {"environment": environment_name(name), "option": f"--{name.replace('_', '-')}", "": name}
    return places.get(source, f"{source}: {name}")


def _explain(name: str, source: str, detail: Mapping[str, Any]) -> tuple[str, str, str]:
    where = _place(source, name)
    if detail["type"] == "extra_forbidden":
        return where, "there is no such setting", f"Settings are: {', '.join(Settings.model_fields)}"
    given, problem = detail["input"], detail["msg"].removeprefix("Value error, ").replace("tuple", "list")
    value = mask_url(str(given)) if name == "url" else "what is given" if name == "web_token" else repr(given)
    if isinstance(given, timedelta):
        value = f"{given.total_seconds():g}s"
    return where, f"{value} cannot be used: {problem}", Settings.model_fields[name].description or ""


def _endpoint(text: str, default_port: int, url: str, source: str) -> Endpoint:
    """A host, a host and a port, or an IPv6 address in brackets."""
    parts = _HOST.fullmatch(text)
    port = parts["port"] if parts else None
    if parts is None or (port is not None and not (port.isdigit() and 0 < int(port) < 2**16)):
        wrong = f"the port {port!r}, which is not a port number" if parts else f"the host {text!r}, which cannot be read"
        if text and "@" in url.partition(text)[2]:  # what looks like a host is a part of the password
            wrong = "a '/' or '?' before its '@'"
        raise ConfigurationError(source, f"{mask_url(url)!r} has {wrong}", f"{_URL_HINT}; {_URL_CHARACTERS}")
    return Endpoint(parts["ipv6"] or parts["name"], int(port or default_port))


def _tls(query: str, url: str, source: str, *, secure: bool) -> Tls | None:
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    unknown = set(options) - {"cafile", "certfile", "keyfile", "verify"}
    if unknown:
        names: Sequence[str] = sorted(unknown)
        raise ConfigurationError(source, f"{mask_url(url)!r} has unknown options {', '.join(names)}", _OPTIONS_HINT)
    if not secure:
        if options:
            raise ConfigurationError(source, f"{mask_url(url)!r} has TLS options and is not amqps://", _OPTIONS_HINT)
        return None
    return Tls(options.get("cafile"), options.get("certfile"), options.get("keyfile"), options.get("verify") != "no")
