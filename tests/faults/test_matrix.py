"""The quick faults of the matrix, on one node and for rmqjobs alone; `make faults` runs all of them, beside other systems."""

import sys
from collections.abc import Iterator

import pytest

from rmqjobs.testing.broker import NoBroker
from tests.faults.faults import FAULTS, QUICK, Fault
from tests.faults.matrix import Matrix
from tests.faults.stages import stage
from tests.faults.teams import OURS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
AT_ONCE = 2 * 8  # jobs of two workers that can be running when a fault strikes


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    try:
        with stage(tmp_path_factory.mktemp("faults"), {OURS: sys.executable}) as scene:
            yield Matrix(scene)
    except NoBroker:
        pytest.skip("needs a local rabbitmq-server")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.kind == QUICK], ids=lambda fault: fault.name)
def test_nothing_is_lost(matrix: Matrix, fault: Fault) -> None:
    outcome = matrix.suffer(fault)[OURS]
    print(f"{fault.name}: {outcome}")  # noqa: T201
    assert outcome.jobs > 20  # a busy machine publishes few while the fault lasts
    assert (outcome.lost, outcome.waiting, outcome.stuck) == (0, 0, 0), outcome
    assert outcome.seconds is not None
    assert outcome.twice <= AT_ONCE, "only what ran when it struck may run again"
