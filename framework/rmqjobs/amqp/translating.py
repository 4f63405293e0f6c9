"""Our errors for those that pika raises, in the words of whoever has to fix the problem."""

from __future__ import annotations

import re
import ssl
from datetime import timedelta

from pika import exceptions as pika_errors

from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConsumerTimeout,
    MessageTooLarge,
    PermissionMissing,
    TlsFailed,
    TopologyConflict,
    TopologyMissing,
    VhostNotFound,
)
from rmqjobs.settings import Broker, Endpoint

ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, NOT_ALLOWED = 403, 404, 406, 530
_CODES = {"ACCESS_REFUSED": ACCESS_REFUSED, "NOT_FOUND": NOT_FOUND, "PRECONDITION_FAILED": PRECONDITION_FAILED}
_TOO_LARGE = re.compile(r"message size (\d+) is larger than configured max size (\d+)")
_TIMED_OUT = re.compile(r"acknowledgement .*timed out.*?(\d+) ms")


def translate(error: BaseException, endpoint: Endpoint | str = "the broker") -> BrokerError:
    """Our error for one of pika's."""
    if isinstance(error, BrokerError):
        return error
    text = str(getattr(error, "reply_text", "") or error or type(error).__name__)
    code = getattr(error, "reply_code", None) or _CODES.get(text.partition(" ")[0])
    if code == ACCESS_REFUSED:
        hint = "See what each role needs with: rmqjobs topology permissions; a user that may not declare needs declare = false"
        return PermissionMissing(f"{text}. {hint}")
    if code == NOT_FOUND:
        return TopologyMissing(f"{text}. Declare what is needed with: rmqjobs topology apply; or correct the prefix")
    if code == PRECONDITION_FAILED and (known := _precondition(text)) is not None:
        return known
    if code is not None and code not in (200, 320):
        return BrokerError(f"{endpoint} closed the channel or connection: {code} {text}")
    return BrokerUnavailable(f"the connection to {endpoint} is lost: {text}")


def _precondition(text: str) -> BrokerError | None:
    if "inequivalent" in text:
        return TopologyConflict(
            f"{text}. RabbitMQ never changes arguments: empty and delete that queue or exchange, or use another prefix"
        )
    too_large = _TOO_LARGE.search(text)
    if too_large:
        return MessageTooLarge(int(too_large[1]), int(too_large[2]))
    timed_out = _TIMED_OUT.search(text)
    return ConsumerTimeout(f"{timedelta(milliseconds=int(timed_out[1]))}") if timed_out else None


def opening_error(broker: Broker, endpoint: Endpoint, error: BaseException) -> BrokerError:
    """Why a connection could not be opened."""
    causes = _causes(error)
    refusals = (_refusal(broker, endpoint, cause) for cause in causes)
    return next(filter(None, refusals), None) or _unavailable(endpoint, causes)


def _refusal(broker: Broker, endpoint: Endpoint, cause: BaseException) -> BrokerError | None:
    """Our error, if the broker refused us."""
    if isinstance(cause, (pika_errors.ProbableAuthenticationError, pika_errors.AuthenticationError)):
        return AuthenticationFailed(endpoint, broker.user, broker.source)
    if isinstance(cause, pika_errors.ProbableAccessDeniedError) or getattr(cause, "reply_code", 0) == NOT_ALLOWED:
        return VhostNotFound(endpoint, broker.vhost, broker.user)
    if isinstance(cause, ssl.SSLError):
        return TlsFailed(endpoint, cause)
    if isinstance(cause, pika_errors.IncompatibleProtocolError):
        return TlsFailed(endpoint, "it does not speak plain AMQP; perhaps it expects TLS")
    return None


def _unavailable(endpoint: Endpoint, causes: list[BaseException]) -> BrokerUnavailable:
    if any("setting up AMQP" in str(cause) for cause in causes):
        return BrokerUnavailable.at(endpoint, "something answers there that does not speak AMQP")
    if any(isinstance(cause, RuntimeError) and "shutdown" in str(cause) for cause in causes):
        return BrokerUnavailable(f"{endpoint} cannot be looked up: the program is ending, and Python starts no more threads")
    telling = next((cause for cause in causes if isinstance(cause, OSError)), causes[-1])
    return BrokerUnavailable.at(endpoint, str(telling) or type(telling).__name__)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything pika wrapped into it."""
    found, queue = [], [error]
    while queue:
        current = queue.pop(0)
        if current in found:
            continue
        found.append(current)
        inner = [
            getattr(current, "exception", None),
            current.__cause__,
            *getattr(current, "exceptions", ()),
            *current.args,
        ]
        queue += [item for item in inner if isinstance(item, BaseException)]
    return found
