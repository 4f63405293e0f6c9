"""What every system's program does, so that all are judged alike. Standard library only.

`python -m tests.faults.systems.NAME work` runs one worker until SIGTERM; `publish FIRST COUNT RATE` publishes jobs numbered
from FIRST, so many a second, each again until that succeeds, and ends early at SIGTERM; `queues` prints where jobs wait and
where they are given up.

Environment: FAULTS_URL, the broker; FAULTS_LEDGER, the ledger's file; FAULTS_PREFIX, the first part of every queue's name.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.ledger import EFFECT, PUBLISHED, STARTED, Ledger

URL = os.environ.get("FAULTS_URL", "amqp://guest:guest@127.0.0.1/")
PREFIX = os.environ.get("FAULTS_PREFIX", "faults")
HEARTBEAT = 5  # seconds, of everybody
CONFIRM_SECONDS = 5  # that a publish may take, where a system lets one say so
LONG_FROM = 1_000_000  # jobs from this number on are long ones
PAUSE = 0.2  # before a publish is tried again
ledger = Ledger(Path(os.environ.get("FAULTS_LEDGER", "faults.sqlite")))


def begin(n: int) -> float:
    """What a handler does first; then it waits so many seconds in its own way."""
    ledger.note(STARTED, n)
    return 0.02 if n < LONG_FROM else 10.0


def finish(n: int) -> None:
    """What a handler does last: the effect that must not be lost."""
    ledger.note(EFFECT, n)


def publish_all(publish: Callable[[int], object], first: int, count: int, rate: float) -> None:
    """Publishes each job until that returned without an exception, which is what a careful program does; SIGTERM ends it."""
    began, told_to_stop = time.monotonic(), threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told_to_stop.set())
    for number in range(count):
        if told_to_stop.wait(max(began + number / rate - time.monotonic(), 0)):
            return
        while True:
            try:
                publish(first + number)
            except Exception as error:  # noqa: BLE001 - whatever it is, the job is not known to be there
                print(f"{first + number}: {type(error).__name__}: {error}"[:300], file=sys.stderr, flush=True)  # noqa: T201
                time.sleep(PAUSE)
            else:
                ledger.note(PUBLISHED, first + number)
                break


def main(*, work: Callable[[], object], publish: Callable[[int], object], waiting: Sequence[str], dead: Sequence[str]) -> None:
    """Runs the command of `sys.argv`; the last two are names of queues."""
    match sys.argv[1:]:
        case ["work"]:
            work()
        case ["publish", first, count, rate]:
            publish_all(publish, int(first), int(count), float(rate))
        case ["queues"]:
            print(json.dumps({"waiting": waiting, "dead": dead}))  # noqa: T201
        case others:
            sys.exit(f"work, publish FIRST COUNT RATE or queues, not {others}")
