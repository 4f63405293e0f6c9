"""The few calls of RabbitMQ's HTTP API that AMQP has no words for."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from urllib.parse import quote, unquote, urlsplit

from rmqjobs.errors import AuthenticationFailed, BrokerError, BrokerUnavailable, ConfigurationError
from rmqjobs.settings import mask_url

TIMEOUT = 5.0
_HINT = "Write it as http://user:password@host:15672, special characters as %XX"
_UNAUTHORISED = (401, 403)


async def queue_names(management_url: str, vhost: str) -> list[str]:
    """The names of all queues of a virtual host.

    Raises:
        BrokerError: The API is not there, or refuses us.
    """
    path = f"/api/queues/{quote(vhost, safe='')}?disable_stats=true&enable_queue_totals=true"
    return [queue["name"] for queue in await asyncio.to_thread(_get, management_url, path)]


def _get(management_url: str, path: str) -> list[dict[str, str]]:
    try:
        parts = urlsplit(management_url)
        host = f"{parts.hostname}:{parts.port or 15672}"
    except ValueError:
        raise ConfigurationError("management_url", f"{mask_url(management_url)!r} is no URL", _HINT) from None
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError("management_url", f"{mask_url(management_url)!r} is no HTTP URL", _HINT)
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    request = urllib.request.Request(f"{parts.scheme}://{host}{parts.path.rstrip('/')}{path}")  # noqa: S310 - checked above
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            found: list[dict[str, str]] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code in _UNAUTHORISED:
            raise AuthenticationFailed(host, user, "management_url") from None
        raise BrokerError(f"the management API at {host} answered {error.code} to {path}") from None
    except (OSError, ValueError) as error:
        raise BrokerUnavailable(f"no management API answers at {host}: {error}. Correct management_url, or unset it") from None
