"""On three nodes, whose leader is killed meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from rmqjobs import Settings
from rmqjobs.testing.broker import PrivateNode
from tests.helpers import private_node, until
from tests.proof.windows import SCHEDULES, TIMEOUT, WINDOWS, Ledger, check, lost_in_the_window, running

pytestmark = pytest.mark.timeout(TIMEOUT)


@pytest.fixture
def cluster() -> Iterator[list[PrivateNode]]:
    with ExitStack() as stack:
        first = stack.enter_context(private_node("cluster_partition_handling = pause_minority"))
        nodes = [first]
        for _ in range(2):
            node = PrivateNode(config=["cluster_partition_handling = pause_minority"], beside=first)
            stack.callback(node.remove)
            node.start()
            node.join(first)
            nodes.append(node)
        yield nodes


async def test_three_nodes_and_the_leader_killed(monkeypatch: pytest.MonkeyPatch, cluster: list[PrivateNode]) -> None:
    ledger = Ledger(datetime.now(UTC))
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    settings = Settings(url=f"amqp://guest:guest@{hosts}/", prefix="window", journal_interval=timedelta(milliseconds=100))
    with lost_in_the_window(monkeypatch) as lost:
        async with running(ledger, settings):
            for part in (1, 2):
                await until(lambda part=part: len(lost) >= part * WINDOWS // 3, timeout=WINDOWS * 3)
                leader = await asyncio.to_thread(leader_of, cluster, "window.scheduler")
                leader.kill()
                await asyncio.sleep(2)
                await asyncio.to_thread(leader.start)
            await until(lambda: len(lost) >= WINDOWS, timeout=WINDOWS * 3)
            await asyncio.sleep(5)
    # Five ticks a second: what ran when a node was killed, and what was acknowledged in the two seconds before.
    check(ledger, lost, redelivered=2 * SCHEDULES * 2)


def leader_of(nodes: list[PrivateNode], queue: str) -> PrivateNode:
    listed = nodes[0].ctl("list_queues", "name", "leader", "--no-table-headers")
    leader = next(line.split()[1] for line in listed.splitlines() if line.split()[0] == queue)
    return next(node for node in nodes if node.name == leader)
