"""How much of this machine we may use, and how much a worker runs at once on it. Floor 2: reads only /proc and /sys.

A container sees all processors of its host; its control group says how much of them it may use. The smallest limit counts.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rmqjobs.settings import Settings

MEBIBYTE = 2**20
WORKER_MEMORY = 512 * MEBIBYTE  # one of several workers, with its plugins and its children
CHILD_MEMORY = 256 * MEBIBYTE
# Handlers that block mostly wait, so there are many more threads than processors; a thread that waits costs little.
THREADS_PER_CPU, FEWEST_THREADS, MOST_THREADS = 10, 20, 80
FEWEST_IN_ONE_OF_SEVERAL = 8
MOST_MEMORY = 2**63  # when nothing says how much there is


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use.

    Args:
        cpus: Number of processors; may be a fraction.
        memory: Bytes.
    """

    cpus: float
    memory: int

    @classmethod
    def look(cls, root: Path = Path("/")) -> Machine:
        """The machine that this process runs on.

        Args:
            root: Where /proc and /sys are.
        """
        groups = list(_groups(root))
        quotas = [quota for folder in groups if (quota := _cpu_quota(folder)) is not None]
        limits = [limit for folder in groups if (limit := _memory_limit(folder)) is not None]
        return cls(min([float(_processors()), *quotas]), min([_total_memory(root), *limits]))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much runs at once.

    Args:
        processes: Workers under one parent.
        threads: Thread handlers in each worker.
        children: Process handlers in each worker.
    """

    processes: int
    threads: int
    children: int


def sizes(settings: Settings, machine: Machine | None = None) -> Sizes:
    """The sizes in the settings, with `auto` replaced by what suits the machine."""
    machine = machine or Machine.look()
    cpus = math.ceil(machine.cpus)
    processes = _given(settings.processes, max(min(cpus, machine.memory // WORKER_MEMORY), 1))
    threads = min(max(THREADS_PER_CPU * cpus, FEWEST_THREADS), MOST_THREADS)
    children = max(min(cpus, machine.memory // CHILD_MEMORY) // processes, 1)
    if processes > 1:
        threads = max(threads // processes, FEWEST_IN_ONE_OF_SEVERAL)
    return Sizes(processes, _given(settings.threads, threads), _given(settings.children, children))


def _given(setting: int | str, otherwise: int) -> int:
    return setting if isinstance(setting, int) else otherwise


def _processors() -> int:
    """The number of processors that this process may run on."""
    with contextlib.suppress(AttributeError, OSError):  # only Linux has this
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(root: Path) -> Iterator[Path]:
    """The folders of our control groups and their parents, of both cgroup versions; some of them do not exist."""
    lines = (_read(root / "proc/self/cgroup") or "").splitlines()
    for line in lines:
        _, names, path = line.split(":", 2)
        mounts = ["", "unified"] if not names else [names, *names.split(",")]
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            inner = Path(path.lstrip("/"))
            yield from (top / folder for folder in (inner, *inner.parents))


def _cpu_quota(folder: Path) -> float | None:
    quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
    if not period:
        quota, period = _read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or ""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _memory_limit(folder: Path) -> int | None:
    limits = [_read(folder / name) or "" for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def _total_memory(root: Path) -> int:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return MOST_MEMORY


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def memory_bytes() -> int:
    """Memory that this process holds now; where the system does not tell, the most that it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
