"""The few calls of RabbitMQ's HTTP API that have no counterpart in AMQP."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from rmqjobs.amqp.connection import Connection
from rmqjobs.errors import AuthenticationFailed, BrokerError, BrokerUnavailable, ConfigurationError, RmqJobsError
from rmqjobs.settings import Broker, Endpoint, Settings, mask_url

TIMEOUT = 5.0
GUESS_TIMEOUT = 1.0  # a host behind a firewall never answers, and nobody asked for this
USUAL_OFFSET = 10_000  # 15672 beside 5672, 15671 beside 5671
QUEUE_COLUMNS = (
    "name", "type", "arguments", "policy", "operator_policy", "effective_policy_definition", "members", "online", "state",
)  # fmt: skip
RATE_COLUMNS = (
    "name", "messages_unacknowledged", "message_stats.publish_details.rate", "message_stats.ack_details.rate",
)  # fmt: skip
_HINT = "Write it as http://user:password@host:15672, special characters as %XX"
_UNAUTHORISED = (401, 403)
_NOT_FOUND, _INTERNAL_ERROR, _UNHEALTHY = 404, 500, 503
_PAUSES = (0.2, 0.5, 1.0)  # seconds between tries of a request that it stumbled over


class Management:
    """The API at one URL. Every call raises `BrokerError` when the API is not there, or refuses us.

    Args:
        url: `http[s]://user:password@host:15672`.
        tls: How an `https` server is verified; against the system's authorities when None.
        timeout: Seconds for each call.

    Raises:
        ConfigurationError: The URL cannot be used.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, timeout: float = TIMEOUT) -> None:
        try:
            parts = urlsplit(url)
            self._host = str(Endpoint(parts.hostname or "localhost", parts.port or 15672))
        except ValueError:
            raise ConfigurationError("management_url", f"{mask_url(url)!r} is not a URL", _HINT) from None
        if parts.scheme not in ("http", "https"):
            raise ConfigurationError("management_url", f"{mask_url(url)!r} is not an HTTP URL", _HINT)
        path = parts.path.rstrip("/").removesuffix("/api")
        self._base = f"{parts.scheme}://{self._host}{path}/api/"
        self._user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._token = base64.b64encode(f"{self._user}:{password}".encode()).decode()
        self._tls, self.timeout = tls, timeout

    async def queues(self, vhost: str) -> dict[str, Mapping[str, Any]]:
        """All queues of a virtual host by name, with the fields in `QUEUE_COLUMNS`."""
        found = await self._get(f"queues/{_quoted(vhost)}?columns={','.join(QUEUE_COLUMNS)}")
        return {queue["name"]: queue for queue in found}

    async def rates(self, vhost: str) -> dict[str, Mapping[str, Any]]:
        """Numbers of each queue by its name: messages, and how many a second come and go; some seconds old."""
        found = await self._get(f"queues/{_quoted(vhost)}?columns={','.join(RATE_COLUMNS)}")
        return {queue["name"]: queue for queue in found}

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

    async def policies(self, vhost: str) -> list[Mapping[str, Any]]:
        """Policies of a virtual host: name, pattern, apply-to, priority, definition; empty when the user may not ask."""
        return await self._list(f"policies/{_quoted(vhost)}")

    async def operator_policies(self, vhost: str) -> list[Mapping[str, Any]]:
        """Operator policies, in the same form."""
        return await self._list(f"operator-policies/{_quoted(vhost)}")

    async def set_policy(self, vhost: str, name: str, policy: Mapping[str, Any]) -> None:
        """Sets a policy: pattern, apply-to, priority, definition."""
        path = f"policies/{_quoted(vhost)}/{_quoted(name)}"
        await asyncio.to_thread(self._fetch, path, json.dumps(dict(policy)).encode())

    async def cluster_name(self) -> str:
        """What the cluster calls itself."""
        return str((await self._get("overview?columns=cluster_name"))["cluster_name"])

    async def clock_difference(self) -> timedelta:
        """The broker's time minus ours, accurate to a second."""
        before = datetime.now(UTC)
        _, date = await asyncio.to_thread(self._fetch, "overview?columns=cluster_name")
        middle = before + (datetime.now(UTC) - before) / 2
        # The header leaves the fraction of the second out.
        return parsedate_to_datetime(date) + timedelta(seconds=0.5) - middle

    async def _list(self, path: str) -> list[Mapping[str, Any]]:
        try:
            found: list[Mapping[str, Any]] = await self._get(path)
        except (AuthenticationFailed, _NotFound):
            return []
        return found

    async def _get(self, path: str) -> Any:
        for pause in _PAUSES:
            try:
                found, _ = await asyncio.to_thread(self._fetch, path)
            except _Stumbled:
                await asyncio.sleep(pause)
            else:
                return found
        return (await asyncio.to_thread(self._fetch, path))[0]

    def _fetch(self, path: str, body: bytes | None = None) -> tuple[Any, str]:
        """What is at a path, and the date of the answer; with a body, puts the body there."""
        method = "GET" if body is None else "PUT"
        request = urllib.request.Request(self._base + path, body, method=method)  # noqa: S310 - the scheme was checked
        request.add_header("Authorization", f"Basic {self._token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout, context=self._tls) as answer:  # noqa: S310
                content = answer.read()
                return (json.loads(content) if content else None), answer.headers.get("Date", "")
        except urllib.error.HTTPError as error:
            if error.code in _UNAUTHORISED:
                raise AuthenticationFailed(self._host, self._user, "management_url") from None
            if error.code == _NOT_FOUND:
                raise _NotFound(f"there is no {path} at {self._base}. Correct management_url") from None
            if error.code == _UNHEALTHY:
                raise _Unhealthy(f"the management API at {self._host} answered that something is wrong") from None
            kind = _Stumbled if error.code == _INTERNAL_ERROR else BrokerError
            raise kind(f"the management API at {self._host} answered {error.code} to {path}") from None
        except (OSError, ValueError) as error:
            text = f"no management API answers at {self._host}: {error}. Correct management_url, or unset it"
            raise BrokerUnavailable(text) from None


async def find(settings: Settings, connection: Connection) -> Management | None:
    """The API of the broker that we are connected to: the configured one, or else one that answers at the usual port beside it.

    A guessed one must belong to the same cluster and accept the same user; otherwise the result is None.

    Raises:
        ConfigurationError: `management_url` cannot be used.
    """
    if settings.management_url is not None:
        return Management(settings.management_url)
    guess = _beside(settings.broker, connection.endpoint)
    try:
        if guess is not None and await guess.cluster_name() == connection.cluster_name:
            guess.timeout = TIMEOUT
            return guess
    except (RmqJobsError, KeyError, TypeError):  # something else may answer there
        pass
    return None


def _beside(broker: Broker, endpoint: Endpoint) -> Management | None:
    """The API at the usual port of that host, for the same user; None when there is no such port."""
    port = endpoint.port + USUAL_OFFSET
    if port >= 2**16:
        return None
    scheme, tls = ("https", broker.tls.context()) if broker.tls else ("http", None)
    user = f"{quote(broker.user, safe='')}:{quote(broker.password, safe='')}"
    return Management(f"{scheme}://{user}@{Endpoint(endpoint.host, port)}", tls, GUESS_TIMEOUT)


class _NotFound(BrokerError):
    """There is no such thing."""


class _Stumbled(BrokerError):
    """It could not answer this time: RabbitMQ 3.10 does not when a queue goes away while it lists them."""


class _Unhealthy(BrokerError):
    """A health check failed."""


def _quoted(name: str) -> str:
    return quote(name, safe="")
