"""Options that every command takes, and the settings they make together with environment and file."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from rmqjobs.errors import ConfigurationError
from rmqjobs.settings import Settings

DEFAULT_FILE = "rmqjobs.toml"


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Where the broker is."""

    url: Annotated[str | None, Parameter(name=["--url", "-u"])] = None
    """The broker: amqp[s]://user:password@host[:port]/vhost. Environment: RMQJOBS_URL."""
    prefix: str | None = None
    """First part of every exchange and queue name. Environment: RMQJOBS_PREFIX."""
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None
    """A TOML file of settings; rmqjobs.toml of this folder, if it is there."""

    def settings(self, **flags: Any) -> Settings:
        """Flags over environment over file over defaults."""
        given = {"url": self.url, "prefix": self.prefix, **flags}
        return Settings.load(flags=given, environ=os.environ, file=_read(self.config))


def _read(config: Path | None) -> dict[str, Any]:
    path = config or Path(DEFAULT_FILE)
    if config is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("--config", f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("--config", f"{path} is not TOML: {error}") from None
