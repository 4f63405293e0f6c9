"""On one node: runs are counted while the window is forced over and over."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import Settings
from tests.helpers import private_node, until
from tests.proof.windows import TIMEOUT, WINDOWS, Ledger, check, lost_in_the_window, running, skipped

pytestmark = pytest.mark.timeout(TIMEOUT)


async def test_what_is_published_twice_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(datetime.now(UTC))
    with private_node() as node, lost_in_the_window(monkeypatch) as lost:
        settings = Settings(url=node.url, prefix="window", journal_interval=timedelta(milliseconds=100))
        async with running(ledger, settings):
            await until(lambda: len(lost) >= WINDOWS, timeout=WINDOWS * 3)
            await asyncio.sleep(3)
        again = await skipped(settings)
    check(ledger, lost)
    assert again >= WINDOWS, "each was published again, and the journal says what became of that"
