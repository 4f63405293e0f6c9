"""The few calls of RabbitMQ's HTTP API that AMQP has no words for."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from rmqjobs.errors import AuthenticationFailed, BrokerError, BrokerUnavailable, ConfigurationError
from rmqjobs.settings import mask_url

TIMEOUT = 5.0
_HINT = "Write it as http://user:password@host:15672, special characters as %XX"
_UNAUTHORISED = (401, 403)
_NOT_FOUND, _UNHEALTHY = 404, 503


class Management:
    """The API at one URL. Every call raises `BrokerError` when it is not there, or refuses us.

    Args:
        url: `http[s]://user:password@host:15672`.

    Raises:
        ConfigurationError: The URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._host = f"{parts.hostname}:{parts.port or 15672}"
        except ValueError:
            raise ConfigurationError("management_url", f"{mask_url(url)!r} is no URL", _HINT) from None
        if parts.scheme not in ("http", "https"):
            raise ConfigurationError("management_url", f"{mask_url(url)!r} is no HTTP URL", _HINT)
        path = parts.path.rstrip("/").removesuffix("/api")
        self._base = f"{parts.scheme}://{self._host}{path}/api/"
        self._user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._token = base64.b64encode(f"{self._user}:{password}".encode()).decode()

    async def queue_names(self, vhost: str) -> list[str]:
        """The names of all queues of a virtual host."""
        found = await self._get(f"queues/{_quoted(vhost)}?disable_stats=true&enable_queue_totals=true")
        return [queue["name"] for queue in found]

    async def queues(self, vhost: str) -> dict[str, Mapping[str, Any]]:
        """All queues of a virtual host by name: arguments, policy, effective_policy_definition, members, online."""
        columns = "name,arguments,policy,operator_policy,effective_policy_definition,members,online,state"
        return {queue["name"]: queue for queue in await self._get(f"queues/{_quoted(vhost)}?columns={columns}")}

    async def bindings(self, vhost: str) -> frozenset[tuple[str, str, str]]:
        """Source, destination and routing key of every binding of a virtual host."""
        found = await self._get(f"bindings/{_quoted(vhost)}?columns=source,destination,routing_key")
        return frozenset((each["source"], each["destination"], each["routing_key"]) for each in found)

    async def permissions(self, vhost: str, user: str) -> tuple[str, str, str] | None:
        """The user's expressions for configure, write and read; None when this API's user may not ask."""
        try:
            found = await self._get(f"permissions/{_quoted(vhost)}/{_quoted(user)}")
        except (AuthenticationFailed, _NotFound):
            return None
        return found["configure"], found["write"], found["read"]

    async def disabled_features(self) -> tuple[str, ...]:
        """Names of feature flags that are not enabled."""
        return tuple(each["name"] for each in await self._get("feature-flags") if each["state"] == "disabled")

    async def alarms(self) -> bool:
        """Whether a memory or disk alarm is in effect anywhere."""
        try:
            await self._get("health/checks/alarms")
        except _Unhealthy:
            return True
        return False

    async def clock_difference(self) -> timedelta:
        """The broker's time less ours, to a second."""
        before = datetime.now(UTC)
        _, date = await asyncio.to_thread(self._fetch, "overview?columns=cluster_name")
        middle = before + (datetime.now(UTC) - before) / 2
        # The header leaves the fraction of the second out.
        return parsedate_to_datetime(date) + timedelta(seconds=0.5) - middle

    async def _get(self, path: str) -> Any:
        found, _ = await asyncio.to_thread(self._fetch, path)
        return found

    def _fetch(self, path: str) -> tuple[Any, str]:
        request = urllib.request.Request(self._base + path)  # noqa: S310 - the scheme was checked
        request.add_header("Authorization", f"Basic {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return json.load(answer), answer.headers.get("Date", "")
        except urllib.error.HTTPError as error:
            if error.code in _UNAUTHORISED:
                raise AuthenticationFailed(self._host, self._user, "management_url") from None
            if error.code == _NOT_FOUND:
                raise _NotFound(f"there is no {path} at {self._base}. Correct management_url") from None
            if error.code == _UNHEALTHY:
                raise _Unhealthy(f"the management API at {self._host} answered that something is wrong") from None
            raise BrokerError(f"the management API at {self._host} answered {error.code} to {path}") from None
        except (OSError, ValueError) as error:
            text = f"no management API answers at {self._host}: {error}. Correct management_url, or unset it"
            raise BrokerUnavailable(text) from None


class _NotFound(BrokerError):
    """There is no such thing."""


class _Unhealthy(BrokerError):
    """A health check's way to say no."""


def _quoted(name: str) -> str:
    return quote(name, safe="")
