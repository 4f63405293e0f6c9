"""What `published` records cost those who publish: with and without, turn by turn in one run.

python -m benchmarks.announcing
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable

from rmqjobs import Payload, Publisher, Settings
from rmqjobs.testing.broker import running_broker

ROUNDS, MANY, ONE_BY_ONE = 5, 20_000, 1_500


class Nothing(Payload, type="bench.nothing"):
    """A job that nobody runs."""

    n: int = 0


def main() -> None:
    """Prints the ratios."""
    with running_broker(os.environ) as broker:
        settings = Settings(url=broker.url, prefix=f"bench-{secrets.token_hex(3)}")
        for what, publish, count in (("publish_many", _many, MANY), ("one by one", _singly, ONE_BY_ONE)):
            rates: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(ROUNDS):
                for told, found in rates.items():
                    found.append(_rate(settings.model_copy(update={"journal_published": told}), publish, count))
            on, off = (statistics.median(rates[told]) for told in (True, False))
            print(f"{what:14} {on:9,.0f} jobs/s with records, {off:9,.0f} without: {on / off:.2f}")


def _rate(settings: Settings, publish: Callable[[Publisher, int], None], count: int) -> float:
    with Publisher(settings=settings) as jobs:
        jobs.publish(Nothing())  # connected and declared
        began = time.perf_counter()
        publish(jobs, count)
        return count / (time.perf_counter() - began)


def _many(jobs: Publisher, count: int) -> None:
    jobs.publish_many(Nothing(n=number) for number in range(count))


def _singly(jobs: Publisher, count: int) -> None:
    for number in range(count):
        jobs.publish(Nothing(n=number))


if __name__ == "__main__":
    main()
