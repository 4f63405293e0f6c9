"""Where the systems meet: one RabbitMQ, a node or a cluster of three, behind one proxy through which all of them come."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rmqjobs.errors import RmqJobsError
from rmqjobs.testing.broker import PrivateNode
from tests.faults.proxy import Proxy
from tests.faults.teams import OURS, Team, until

CONFIG = ("cluster_partition_handling = pause_minority", "vm_memory_high_watermark.relative = 0.6")


@dataclass
class Stage:
    """What a fault strikes.

    Args:
        nodes: One, or a cluster of three.
        proxy: To any of them.
        teams: The systems.
    """

    nodes: list[PrivateNode]
    proxy: Proxy
    teams: list[Team]

    @property
    def node(self) -> PrivateNode:
        """Any one that is not struck."""
        return self.nodes[0]

    @property
    def version(self) -> str:
        return self.node.ctl("version").strip()

    def leader_of(self, team: Team) -> PrivateNode:
        """The node that leads the queue in which this system's jobs wait."""
        leader = self._queues("leader").get(team.queues["waiting"][0], "")
        return next((node for node in self.nodes if node.name == leader), self.nodes[0])

    def messages(self, names: Sequence[str]) -> int:
        """Messages in these queues, those that a worker holds included."""
        counts = self._queues("messages")
        return sum(int(counts.get(name) or 0) for name in names)

    def close_connections(self) -> None:
        for node in self.nodes:
            node.ctl("close_all_connections", "a fault")

    def _queues(self, column: str) -> dict[str, str]:
        rows = json.loads(self.node.ctl("list_queues", "name", column, "--formatter", "json") or "[]")
        return {row["name"]: str(row[column]) for row in rows}


@contextmanager
def stage(folder: Path, systems: dict[str, str], *, nodes: int = 1) -> Iterator[Stage]:
    """Everything running and ready: the systems by name, each with the Python that it is installed for."""
    with ExitStack() as ends:
        first = PrivateNode(folder / "brokers", config=CONFIG)
        cluster = [first, *(PrivateNode(folder / "brokers", config=CONFIG, beside=first) for _ in range(nodes - 1))]
        for node in cluster:
            ends.callback(node.remove)
            node.start()
        for node in cluster[1:]:
            node.join(first)
        _make_quorum_the_default(first)
        proxy = ends.enter_context(Proxy(*(node.port for node in cluster)))
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        teams = [Team(name, folder / f"{name}-{nodes}", url, python) for name, python in systems.items()]
        for team in teams:
            ends.callback(team.end)
            team.start_workers()
        made = Stage(cluster, proxy, teams)
        wanted = {team.queues["waiting"][0] for team in teams}
        if not until(lambda: wanted <= set(made._queues("messages")), 60):
            raise TimeoutError(f"a system's queue is not there: {wanted}")
        time.sleep(2 if list(systems) == [OURS] else 5)  # the slower ones are still starting their second worker
        yield made


def _make_quorum_the_default(node: PrivateNode) -> None:
    """For queues of systems that cannot ask for it; RabbitMQ 3.10 cannot do that."""
    try:
        node.ctl("update_vhost_metadata", "/", "--default-queue-type", "quorum")
    except RmqJobsError:
        return
