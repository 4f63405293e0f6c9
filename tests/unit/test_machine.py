"""What a container may use of its host, from files as they are there, and what a worker makes of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rmqjobs import Settings
from rmqjobs.machine import Machine, Sizes, sizes

GIB = 2**30
Written = Callable[[dict[str, str]], Machine]


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Looks at a machine of 16 processors and 64 GiB, with these files besides."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)

    def look(files: dict[str, str]) -> Machine:
        for name, text in ({"proc/meminfo": "MemFree: 1 kB\nMemTotal:       67108864 kB\n"} | files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return Machine.look(tmp_path)

    return look


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({}, 16, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, 16, 64),
        # A container of Docker or Kubernetes, which sees its own group as the root.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2 * GIB}\n"}, 16, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.high": f"{GIB}\n"}, 16, 1),
        # A service of systemd: the limit may be its own or its slice's, and the smaller one counts.
        (
            {
                "proc/self/cgroup": "0::/work.slice/rmqjobs.service\n",
                "sys/fs/cgroup/work.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/work.slice/rmqjobs.service/cpu.max": "400000 100000\n",
            },
            2,
            64,
        ),
        # The first version of control groups.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            },
            0.5,
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            16,
            64,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n", "sys/fs/cgroup/memory.max": "\n"}, 16, 64),
    ],
)
def test_the_smallest_limit_counts(looked: Written, files: dict[str, str], cpus: float, memory: int) -> None:
    assert looked(files) == Machine(cpus, memory * GIB)


def test_this_machine_can_be_looked_at() -> None:
    machine = Machine.look()
    assert 0 < machine.cpus <= (os.cpu_count() or 1)
    assert 2**26 < machine.memory < 2**63


@pytest.mark.parametrize(
    ("machine", "settings", "expected"),
    [
        (Machine(2, 8 * GIB), {}, Sizes(1, 20, 2)),
        (Machine(0.5, GIB), {}, Sizes(1, 20, 1)),
        (Machine(1.5, 8 * GIB), {}, Sizes(1, 20, 2)),
        (Machine(4, 8 * GIB), {}, Sizes(1, 40, 4)),
        (Machine(64, 64 * GIB), {}, Sizes(1, 80, 64)),
        (Machine(8, GIB // 2), {}, Sizes(1, 80, 2)),  # memory for two children
        (Machine(8, GIB // 8), {}, Sizes(1, 80, 1)),
        (Machine(4, 8 * GIB), {"processes": "auto"}, Sizes(4, 10, 1)),
        (Machine(4, GIB), {"processes": "auto"}, Sizes(2, 20, 2)),
        (Machine(4, 8 * GIB), {"processes": 2}, Sizes(2, 20, 2)),
        (Machine(2, 8 * GIB), {"processes": 16}, Sizes(16, 8, 1)),
        (Machine(4, 8 * GIB), {"threads": 3, "children": 5}, Sizes(1, 3, 5)),
    ],
)
def test_a_worker_is_as_big_as_its_machine(machine: Machine, settings: dict[str, object], expected: Sizes) -> None:
    assert sizes(Settings.model_validate(settings), machine) == expected
