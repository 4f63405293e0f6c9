"""Every error rmqjobs raises, and the signals a handler raises. Floor 0: imports nothing of ours.

    RmqJobsError
    ├── ConfigurationError        a setting, an option or an environment variable is wrong
    ├── PluginError               a plugin cannot be used; names its distribution
    ├── BrokerError               the broker refuses us
    │   ├── BrokerUnavailable     nobody listens, the name is unknown, or the connection is lost
    │   ├── AuthenticationFailed  wrong user or password
    │   ├── VhostNotFound         the virtual host does not exist, or is closed to this user
    │   ├── TlsFailed             the TLS handshake failed
    │   ├── PermissionMissing     the user may not do this to that queue or exchange
    │   ├── TopologyMissing       a queue or exchange is not there
    │   ├── MessageTooLarge       a message is larger than the broker accepts
    │   ├── ConsumerTimeout       the broker took back a job that ran longer than the broker's own limit
    │   └── TopologyConflict      a queue or exchange exists with other arguments
    ├── PublishError              a job did not get into RabbitMQ
    │   ├── InvalidJob            it can never get there: too large, absurd delay, …
    │   ├── BrokerGone            no connection within the deadline
    │   ├── PublishTimeout        sent, but not confirmed within the deadline
    │   ├── BrokerBlocked         the broker accepts no messages (memory or disk alarm)
    │   ├── PublisherClosed       the publisher is already closed
    │   ├── PublishRefused        a queue refused the job: it is at its length limit
    │   └── Unroutable            no queue took it: the topology is damaged
    ├── ScheduleError             a schedule cannot be used; names the schedule and where it is written
    ├── NoScheduler               no active scheduler answers
    ├── NewerToken                the scheduler's state was written by a later version
    ├── InvalidFilter             a filter of jobs cannot be read
    ├── NoResult                  a job ended without a result that can be read
    ├── ReviewInProgress          somebody else is reviewing the same dead-letter queue
    └── JobError                  something went wrong with one job
        ├── MalformedMessage      body, content type or a header breaks the message contract
        ├── InvalidPayload        the body is JSON, but not this job type's payload
        ├── NoHandler             no installed plugin handles the job type
        ├── JobExpired            its `expires-at` passed before it started
        ├── PublishedTwice        the same job was published twice, and the other one has already started
        ├── JobCancelled          an operator cancelled the job
        ├── TimeLimitExceeded     it ran longer than the handler's `max_runtime`
        ├── ChildDied             the process that ran it died (a crash, not a failure)
        ├── Interrupted           the worker is draining, or its connection is gone
        └── RemoteError           the handler's exception, as plain data, from a child process

    Signal                        raised *by* a handler, on purpose
    ├── Retry(after=)             try again, no sooner than `after` from now
    ├── Reject(reason)            never try again
    └── Snooze(until= | for_=)    run later; spends no attempt

Each class has a stable `code`; the message says what was expected, what was found and what to do next.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Self


class RmqJobsError(Exception):
    """The base of every error that rmqjobs raises."""

    code: ClassVar[str] = "RJ1000"


class ConfigurationError(RmqJobsError):
    """A setting, an option or an environment variable has a value that cannot be used."""

    code = "RJ1100"

    def __init__(self, setting: str, problem: str, hint: str = "") -> None:
        self.setting = setting
        super().__init__(f"{setting}: {problem}." + (f" {hint}." if hint else ""))


class PluginError(RmqJobsError):
    """A plugin cannot be used as it is; the worker does not start with it."""

    code = "RJ1200"

    def __init__(self, problem: str, *, plugin: str = "", distribution: str = "", hint: str = "") -> None:
        self.plugin, self.distribution = plugin, distribution
        where = f"plugin {plugin!r}" if plugin else ""
        if distribution:
            where = f"{where} of distribution {distribution!r}" if where else f"distribution {distribution!r}"
        super().__init__(": ".join(part for part in (where, problem) if part) + (f". {hint}" if hint else ""))


class BrokerError(RmqJobsError):
    """The broker refuses us, or is not there."""

    code = "RJ1300"


class BrokerUnavailable(BrokerError):
    """Nobody answers at the broker's address, or the connection to it is lost."""

    code = "RJ1301"

    @classmethod
    def at(cls, endpoint: object, detail: object) -> Self:
        """The error for an address at which no broker answers."""
        return cls(f"no RabbitMQ answers at {endpoint} ({detail}). Start it, or correct the URL")


class AuthenticationFailed(BrokerError):
    """The broker does not accept the user name and password."""

    code = "RJ1302"

    def __init__(self, endpoint: object, user: str, setting: str = "url") -> None:
        super().__init__(
            f"{endpoint} does not accept user {user!r} with the password given. Check both in the setting {setting}"
            " (RabbitMQ accepts the user guest only from its own machine)"
        )


class VhostNotFound(BrokerError):
    """The virtual host does not exist, or the user has no access to it."""

    code = "RJ1303"

    def __init__(self, endpoint: object, vhost: str, user: str) -> None:
        super().__init__(
            f"{endpoint} has no virtual host {vhost!r} for user {user!r}."
            f" Create it with: rabbitmqctl add_vhost {vhost}, or correct the end of the URL"
        )


class TlsFailed(BrokerError):
    """The TLS handshake with the broker failed."""

    code = "RJ1304"

    def __init__(self, endpoint: object, detail: object) -> None:
        super().__init__(
            f"TLS with {endpoint} failed: {detail}. Check amqps:// or amqp://, the port, the certificate and cafile="
        )


class PermissionMissing(BrokerError):
    """The user may not configure, write or read the named queue or exchange."""

    code = "RJ1305"


class TopologyConflict(BrokerError):
    """A queue or exchange of this name exists with other arguments, and RabbitMQ never changes arguments."""

    code = "RJ1306"


class TopologyMissing(BrokerError):
    """A queue or exchange is not there: nobody has declared it, or somebody deleted it."""

    code = "RJ1308"


class ConsumerTimeout(BrokerError):
    """The broker took back a job that was not acknowledged within its `consumer_timeout`, and closed the channel."""

    code = "RJ1307"

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"a job was not done within {limit}, the broker's own consumer_timeout, and will be delivered again. Raise the"
            " limit in rabbitmq.conf above the longest max_runtime; from RabbitMQ 3.12 on, consumers set their own"
        )


class MessageTooLarge(BrokerError):
    """The broker does not accept a message of this size, and closed the channel."""

    code = "RJ1309"

    def __init__(self, size: int, limit: int) -> None:
        self.limit = limit
        super().__init__(f"a message has {size:,} bytes, and this broker accepts {limit:,} (max_message_size in rabbitmq.conf)")


class PublishError(RmqJobsError):
    """The job is not known to be in RabbitMQ. Publishing it again with the same `job_id` is safe."""

    code = "RJ1400"


class InvalidJob(PublishError):
    """The job can never be published: its size, delay, priority or payload is impossible."""

    code = "RJ1401"


class BrokerGone(PublishError):
    """There was no connection to the broker within the deadline. The job was not sent on the previous one."""

    code = "RJ1406"


class PublishTimeout(PublishError):
    """The broker did not confirm within the deadline. The job may or may not be queued."""

    code = "RJ1402"


class BrokerBlocked(PublishError):
    """The broker accepts no messages at the moment, because of a memory or disk alarm."""

    code = "RJ1403"


class PublishRefused(PublishError):
    """The broker answered with a negative confirm: a queue is at its length limit."""

    code = "RJ1404"


class Unroutable(PublishError):
    """No queue took the message, although there is one for every job: the topology is damaged."""

    code = "RJ1405"


class PublisherClosed(PublishError):
    """The publisher is already closed, and a closed publisher stays closed. Nothing was sent."""

    code = "RJ1407"

    def __init__(self) -> None:
        super().__init__("not published: this publisher has been closed. Make another one, or close it later")


class ReviewInProgress(RmqJobsError):
    """Another review holds this dead-letter queue; reviewers have to take turns."""

    code = "RJ1500"


class ScheduleError(RmqJobsError):
    """A schedule, or a request about one, cannot be used as it is."""

    code = "RJ1600"

    def __init__(self, schedule: str, problem: str, *, where: str = "", hint: str = "") -> None:
        self.schedule, self.where = schedule, where
        self.unknown = False  # whether there is no schedule of this name
        place = f" ({where})" if where else ""
        super().__init__(f"schedule {schedule!r}{place}: {problem}" + (f". {hint}" if hint else ""))


class NoScheduler(RmqJobsError):
    """No active scheduler answers."""

    code = "RJ1601"


class NewerToken(RmqJobsError):
    """The scheduler's state was written by a newer version that this one does not understand: another must take over."""

    code = "RJ1602"


class InvalidFilter(RmqJobsError):
    """A filter of jobs cannot be read, or means too much."""

    code = "RJ1800"


class NoResult(RmqJobsError):
    """A job ended without a result that can be read: it was given up, dropped or skipped, or its result is too large."""

    code = "RJ1700"


class JobError(RmqJobsError):
    """Something went wrong with one job."""

    code = "RJ2000"


class MalformedMessage(JobError):
    """The message breaks the contract: body, content type or a header."""

    code = "RJ2001"


class InvalidPayload(JobError):
    """The body is JSON but not a payload of this job type."""

    code = "RJ2002"


class NoHandler(JobError):
    """No installed plugin of this worker handles the job type."""

    code = "RJ2003"


class JobExpired(JobError):
    """The job's `expires-at` passed before it started."""

    code = "RJ2004"


class PublishedTwice(JobError):
    """The same job was published twice and the other one has already started: this one does not run."""

    code = "RJ2009"


class JobCancelled(JobError):
    """An operator cancelled the job: it does not run, or its run is stopped."""

    code = "RJ2010"


class TimeLimitExceeded(JobError):
    """The run took longer than the handler's `max_runtime`."""

    code = "RJ2005"


class ChildDied(JobError):
    """The process that ran the job died: a signal, `os._exit`, out of memory."""

    code = "RJ2006"


class Interrupted(JobError):
    """The worker stopped the run because it is draining or its connection is gone."""

    code = "RJ2007"


class RemoteError(JobError):
    """A handler's exception that happened in a child process, as plain data.

    Args:
        types: Qualified names of the exception's class and its bases, the class itself first.
        message: What the exception said.
        traceback: The formatted traceback.
    """

    code = "RJ2008"

    def __init__(self, types: tuple[str, ...], message: str, traceback: str) -> None:
        self.types, self.traceback = types, traceback
        super().__init__(message)


_EXAMPLES = {timedelta: "timedelta(seconds=60)", datetime: "datetime.now(UTC) + timedelta(hours=1)"}


def _check_kind(owner: str, name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{owner}({name}={value!r}): it must be a {kind.__name__}, such as {_EXAMPLES[kind]}")


class Signal(Exception):
    """Raised by a handler to choose what happens next."""


class Retry(Signal):
    """Try this job again; spends an attempt.

    Args:
        after: At least this long from now; without it, the retry policy's delay.
        reason: Shown in the journal, and in the dead letter when attempts run out.
    """

    def __init__(self, reason: str = "", *, after: timedelta | None = None) -> None:
        _check_kind("Retry", "after", after, timedelta)
        self.reason, self.after = reason, after
        super().__init__(reason or "the handler asked for another attempt")


class Reject(Signal):
    """Never try this job again: it becomes a dead letter at once."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Signal):
    """Run this job later, without spending an attempt. Give exactly one of the two.

    Args:
        until: An aware instant.
        for_: A duration from now.
    """

    def __init__(self, *, until: datetime | None = None, for_: timedelta | None = None) -> None:
        if (until is None) == (for_ is None):
            raise TypeError("Snooze takes exactly one of until= and for_=")
        _check_kind("Snooze", "for_", for_, timedelta)
        _check_kind("Snooze", "until", until, datetime)
        if until is not None and until.tzinfo is None:
            raise ValueError(f"Snooze(until={until.isoformat()}) has no time zone: give an aware datetime")
        self.until, self.for_ = until, for_
        super().__init__(f"snoozed until {until}" if until else f"snoozed for {for_}")
