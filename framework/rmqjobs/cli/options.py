"""Options that every command takes, and the settings they make together with environment and file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rmqjobs.cli.errors import say
from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import ENVIRONMENT_PREFIX, Settings, environment_name, parse_duration

DEFAULT_FILE = "rmqjobs.toml"

Flag = Annotated[bool, Parameter(negative="")]
Words = Annotated[list[str] | None, Parameter(negative="")]  # an option that is repeated


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Where the broker is."""

    url: Annotated[str | None, Parameter(name=["--url", "-u"])] = None
    """The broker: amqp[s]://user:password@host[:port]/vhost. Environment: RMQJOBS_URL."""
    prefix: str | None = None
    """First part of every exchange and queue name. Environment: RMQJOBS_PREFIX."""
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None
    """A TOML file of settings and schedules; by default rmqjobs.toml in this folder, if it exists."""

    @property
    def file(self) -> Path:
        """The settings file, which need not exist."""
        return self.config or Path(DEFAULT_FILE)

    def settings(self, *, lenient: bool = False, **flags: Any) -> Settings:
        """Flags come before environment, file and defaults. With `lenient`, a file that cannot be read only gives a note."""
        given = {"url": self.url, "prefix": self.prefix, **flags}
        _warn_of_misspelt(os.environ)
        try:
            file = _read(self.config)
        except ConfigurationError as error:
            if not lenient:
                raise
            say(f"note: continuing without settings from the file: {error}")
            file = {}
        return Settings.load(flags=given, environ=os.environ, file=file, file_name=str(self.file))


def as_duration(option: str, text: str) -> timedelta:
    """An option's duration; a `ConfigurationError` names the option."""
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(option, str(error)) from None
    if not isinstance(duration, timedelta):
        raise ConfigurationError(option, f"{text!r} is not a duration", "Write it as 30s, 1h30m, 24h or 7d")
    return duration


def _warn_of_misspelt(environ: Mapping[str, str]) -> None:
    """Notes a variable that is nearly a setting: it would silently do nothing."""
    known = {environment_name(name) for name in Settings.model_fields}
    for name in environ:
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known:
            continue
        import difflib  # noqa: PLC0415 - hardly ever needed

        if close := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            say(f"note: {name} is not a setting. Did you mean {close[0]}?")


def _read(config: Path | None) -> dict[str, Any]:
    path = config or Path(DEFAULT_FILE)
    if config is None and not path.exists():
        return {}
    import tomllib  # noqa: PLC0415 - most run without a file

    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("--config", f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("--config", f"{path} is not TOML: {error}") from None
