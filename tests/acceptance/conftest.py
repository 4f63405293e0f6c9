"""A stand for each test: real processes, with a plugin of their own, on the shared broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rmqjobs.testing.broker import RunningBroker
from tests.acceptance.helpers import Stand, stand


@pytest.fixture
def here(tmp_path: Path, broker: RunningBroker, prefix: str) -> Iterator[Stand]:
    with stand(tmp_path, broker.url, prefix) as made:
        yield made
