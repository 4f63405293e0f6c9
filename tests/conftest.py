"""One real RabbitMQ for the whole run, a clean prefix for each test."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta

import pytest

from rmqjobs.settings import Settings
from rmqjobs.testing.broker import NoBroker, RunningBroker, running_broker
from tests.prefixes import Prefixes

SHARED = "RMQJOBS_SHARED_BROKER"  # the one that the first process has started, for those that run tests beside each other


def pytest_configure(config: pytest.Config) -> None:
    """Starts one broker for all processes of a run that has several."""
    if not getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        return
    running = ExitStack()
    try:
        broker = running.enter_context(running_broker())
    except NoBroker:
        return  # each test that needs one says so
    os.environ[SHARED] = json.dumps(asdict(broker))
    config.add_cleanup(running.close)


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """A real broker: skipped without one on a contributor's machine, failed in CI."""
    if SHARED in os.environ:
        yield RunningBroker(**json.loads(os.environ[SHARED]))
        return
    try:
        with running_broker() as broker:
            yield broker
    except NoBroker as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def prefixes(broker: RunningBroker) -> Iterator[Prefixes]:
    prefixes = Prefixes(broker)
    yield prefixes
    prefixes.close()


@pytest.fixture
def prefix(prefixes: Prefixes) -> Iterator[str]:
    """A clean one; what a test leaves there goes away with it."""
    prefix = prefixes.take()
    yield prefix
    prefixes.give_back(prefix)


@pytest.fixture
def settings(broker: RunningBroker, prefix: str) -> Settings:
    """Settings of a test that has the broker to itself, as far as it can see."""
    return Settings(
        url=broker.url,
        prefix=prefix,
        journal_interval=timedelta(milliseconds=50),
        grace=timedelta(seconds=5),
        management_url=broker.management_url,
    )
