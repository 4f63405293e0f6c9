"""Job ids, and the time that ours have in them."""

from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs.wire.ids import made_at, new_job_id


def test_an_id_tells_when_it_was_made() -> None:
    made = made_at(new_job_id())
    assert made is not None
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "job_id",
    ["", "7", "order@2026-12-24", "00000000-0000-4000-8000-000000000000", "x" * 255, "shop.nightly@2027-01-01T02:00:00Z"],
)
def test_other_ids_tell_nothing(job_id: str) -> None:
    assert made_at(job_id) is None
