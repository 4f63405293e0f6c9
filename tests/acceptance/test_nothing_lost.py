"""The promise: every job published is done, dead or waiting, whatever dies in the middle. Real processes, a node of our own."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rmqjobs import Publisher, Settings
from rmqjobs.errors import BrokerBlocked
from rmqjobs.testing.broker import PrivateNode, RunningBroker
from tests.acceptance.helpers import Fatal, Heavy, Mark, Stand, stand
from tests.helpers import private_node, wait


def publisher(where: Stand, **options: object) -> Publisher:
    return Publisher(settings=Settings(url=where.url, prefix=where.prefix, **options))  # type: ignore[arg-type]


@pytest.fixture(params=["asyncio", "uvloop"])
def here(tmp_path: Path, broker: RunningBroker, prefix: str, request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(tmp_path, broker.url, prefix, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """A node that a test may restart, and has running again at its end."""
    with private_node() as node:
        yield node


def complete(where: Stand, count: int) -> bool:
    return set(where.marks) == set(range(count))


def test_a_worker_killed_with_9_in_the_middle_loses_nothing(here: Stand) -> None:
    count = 3000
    with publisher(here) as jobs:
        first, second = here.worker("--concurrency", "20"), here.worker("--concurrency", "20")
        jobs.publish_many(Mark(n=n, seconds=0.005) for n in range(count))
        wait(lambda: len(here.marks) > 300)
        first.send_signal(signal.SIGKILL)
        wait(lambda: complete(here, count), 60)
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=60) == 0
    doubles = len(here.marks) - count
    assert 0 <= doubles <= 60  # what the dead one had in flight may have run twice; nothing else


def test_a_broker_restarted_in_the_middle_loses_nothing(tmp_path: Path, node: PrivateNode) -> None:
    count = 3000
    with stand(tmp_path, node.url, "restart") as here, publisher(here, publish_timeout=timedelta(seconds=60)) as jobs:
        worker = here.worker("--concurrency", "20")
        jobs.publish_many(Mark(n=n, seconds=0.005) for n in range(count))
        wait(lambda: len(here.marks) > 300)
        node.kill()
        time.sleep(1)
        node.start()
        jobs.publish_many(Mark(n=n) for n in range(count, count + 100))  # the publisher comes back too
        wait(lambda: complete(here, count + 100), 60)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0


def test_a_drain_under_load_loses_nothing_and_counts_no_attempt(here: Stand) -> None:
    count = 2000
    with publisher(here) as jobs:
        jobs.publish_many(Mark(n=n, seconds=0.005) for n in range(count))
        for _ in range(3):
            worker = here.worker("--concurrency", "20")
            before = len(here.marks)
            wait(lambda before=before: len(here.marks) > before + 100)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=60) == 0
        here.worker()
        wait(lambda: complete(here, count), 60)
    assert sorted(here.marks) == list(range(count))  # once each: nothing was in flight when it closed
    assert {line.split()[1] for line in here.effects} == {"1"}


def test_a_second_signal_ends_at_once(here: Stand) -> None:
    with publisher(here) as jobs:
        worker = here.worker()
        jobs.publish(Mark(n=1, seconds=60))
        time.sleep(0.5)
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 137


def test_children_of_a_killed_worker_die_with_it(here: Stand) -> None:
    with publisher(here) as jobs:
        worker = here.worker()
        jobs.publish(Heavy(n=1, seconds=60))
        child = int(wait(lambda: [line for line in here.effects if line.startswith("pid")])[0].split()[1])
        worker.send_signal(signal.SIGKILL)
        wait(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}/stat").exists() else True


def test_a_job_that_kills_its_worker_runs_alone_and_dies_as_a_crash_loop(here: Stand) -> None:
    """From its second return on it runs in a child: the third worker survives it, and the innocents finish."""
    count = 50
    with publisher(here) as jobs:
        jobs.publish(Fatal())
        jobs.publish_many(Mark(n=n, seconds=0.2) for n in range(count))
        for _ in range(2):
            died = here.worker_that_dies()
            assert died == -signal.SIGKILL
        survivor = here.worker()
        wait(lambda: "crash loop" in here.cli("dlq", "list", "--json").stdout)
        wait(lambda: complete(here, count))
        assert survivor.poll() is None


def test_a_broker_that_takes_no_messages_is_a_typed_error(tmp_path: Path, node: PrivateNode) -> None:
    with stand(tmp_path, node.url, "refused") as here, publisher(here, publish_timeout=timedelta(seconds=2)) as jobs:
        jobs.publish(Mark(n=0))
        node.ctl("set_vm_memory_high_watermark", "0")
        try:
            with pytest.raises(BrokerBlocked, match="alarms"):
                jobs.publish(Mark(n=1))
            with pytest.raises(BrokerBlocked):
                jobs.publish(Mark(n=2))
            jobs.close()  # a blocked broker never answers the close
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.6")


def test_a_worker_drains_although_the_broker_takes_no_messages(tmp_path: Path, node: PrivateNode) -> None:
    with stand(tmp_path, node.url, "blocked") as here, publisher(here) as jobs:
        worker = here.worker("--grace", "1s")
        jobs.publish_many(Mark(n=n) for n in range(100))
        wait(lambda: complete(here, 100))
        node.ctl("set_vm_memory_high_watermark", "0")
        time.sleep(1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        node.ctl("set_vm_memory_high_watermark", "0.6")
