"""What went wrong, in one line to stderr, and the exit code that scripts rely on.

0 done · 1 failed · 2 usage, configuration, a plugin that cannot be used, or refused without confirmation · 3 partly done ·
4 authentication or permission · 5 not found · 6 broker or scheduler unreachable · 7 invalid · 8 the job was given up ·
124 time is over · 130 interrupted · 137 ended by a second signal
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rmqjobs.errors import (
    AuthenticationFailed,
    BrokerGone,
    BrokerUnavailable,
    ConfigurationError,
    InvalidFilter,
    InvalidJob,
    NoScheduler,
    PermissionMissing,
    PluginError,
    RmqJobsError,
    ScheduleError,
    TlsFailed,
    VhostNotFound,
)

FAILED, USAGE, PARTLY, DENIED, NOT_FOUND, UNREACHABLE, INVALID, GIVEN_UP, TIMED_OUT, INTERRUPTED = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    124,
    130,
)

_CODES: tuple[tuple[type[RmqJobsError], int], ...] = (
    (ConfigurationError, USAGE),
    (PluginError, USAGE),
    (AuthenticationFailed, DENIED),
    (VhostNotFound, DENIED),
    (PermissionMissing, DENIED),
    (TlsFailed, UNREACHABLE),
    (BrokerUnavailable, UNREACHABLE),
    (BrokerGone, UNREACHABLE),
    (InvalidFilter, USAGE),
    (InvalidJob, INVALID),
    (ScheduleError, INVALID),
    (NoScheduler, UNREACHABLE),
)


def say(text: str) -> None:
    """Writes a remark to stderr: it is for people, not for a pipe."""
    sys.stderr.write(f"{text}\n")


@contextmanager
def explained(*, debug: bool) -> Iterator[None]:
    """Turns our errors into a sentence and an exit code."""
    try:
        yield
    except RmqJobsError as error:
        if debug:
            traceback.print_exc()
        fail(f"{error.code} {error}", exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `rmqjobs dlq list | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def exit_code(error: RmqJobsError) -> int:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def fail(message: str, code: int) -> NoReturn:
    """Says what went wrong and exits."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(code)
