"""Several workers under one parent, as a service manager or a container runs them: real processes, from the command line."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from rmqjobs import Publisher, Settings
from tests.acceptance.helpers import Heavy, Mark, Stand
from tests.helpers import wait


def publisher(where: Stand) -> Publisher:
    return Publisher(settings=Settings(url=where.url, prefix=where.prefix))


def children_of(pid: int) -> list[int]:
    """Its child processes, by what the kernel says of each."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(status[1]) == pid and status[0] != "Z":
                found.append(int(entry.name))
    return sorted(found)


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_dead_worker_is_replaced_and_a_drain_reaches_all(here: Stand) -> None:
    parent = here.worker("--processes", "3", ready=3)
    workers = children_of(parent.pid)
    assert len(workers) == 3
    with publisher(here) as jobs:
        jobs.publish_many(Mark(n=n, seconds=0.05) for n in range(900))
        wait(lambda: len(here.marks) > 100)
        os.kill(workers[0], signal.SIGKILL)
        wait(lambda: len(set(children_of(parent.pid)) - set(workers)) == 1)
        wait(lambda: set(here.marks) == set(range(900)))
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 0
    assert all(gone(pid) for pid in workers)


def test_a_killed_parent_leaves_no_orphan(here: Stand) -> None:
    parent = here.worker("--processes", "2", ready=2)
    workers = children_of(parent.pid)
    with publisher(here) as jobs:
        jobs.publish(Heavy(n=1, seconds=2))
        job = int(wait(lambda: [line for line in here.effects if line.startswith("pid")])[0].split()[1])
        parent.send_signal(signal.SIGKILL)
        wait(lambda: all(gone(pid) for pid in [*workers, job]))
    assert here.marks == [1], "its workers have drained: what ran was finished"


def test_a_second_signal_ends_all_at_once(here: Stand) -> None:
    parent = here.worker("--processes", "2", ready=2)
    workers = children_of(parent.pid)
    with publisher(here) as jobs:
        jobs.publish(Mark(n=1, seconds=60))
        time.sleep(0.5)
    parent.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 137
    wait(lambda: all(gone(pid) for pid in workers))


def test_what_starting_again_does_not_mend_ends_the_fleet(here: Stand) -> None:
    ran = here.cli("worker", "--plugin", "nobody", "--processes", "2", code=2)
    assert "no plugin 'nobody'" in ran.stderr or "'nobody'" in ran.stderr


def test_a_signal_to_the_whole_group_is_one_signal(here: Stand) -> None:
    """systemd's default, and a shell's Ctrl-C: the parent and its workers all get it."""
    parent = here.worker("--processes", "2", ready=2)
    with publisher(here) as jobs:
        jobs.publish(Mark(n=1, seconds=2))
        time.sleep(0.5)
    for pid in (*children_of(parent.pid), parent.pid):
        os.kill(pid, signal.SIGTERM)
    assert parent.wait(timeout=60) == 0
    assert here.marks == [1]


class Load:
    """Jobs for as long as the context lasts: there are always some waiting."""

    WAITING = 200

    def __init__(self, where: Stand) -> None:
        self._where, self._end, self.count = where, threading.Event(), 0
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._end.set()
        self._thread.join()

    def _publish(self) -> None:
        with publisher(self._where) as jobs:
            while not self._end.wait(0.02):
                more = self.WAITING - (self.count - len(self._where.marks))
                jobs.publish_many(Mark(n=self.count + n, seconds=0.02) for n in range(more))
                self.count += max(more, 0)


def test_a_rolling_restart_of_four_under_load_fails_nothing(here: Stand) -> None:
    workers = [here.worker("--concurrency", "10") for _ in range(4)]
    with Load(here) as load:
        for number, worker in enumerate(workers):
            before = len(here.marks)
            wait(lambda before=before: len(here.marks) > before + 200)
            worker.send_signal(signal.SIGTERM)
            workers[number] = here.worker("--concurrency", "10")
            assert worker.wait(timeout=60) == 0
    wait(lambda: set(here.marks) == set(range(load.count)))
    assert sorted(here.marks) == list(range(load.count)), "each once"
    assert {line.split()[1] for line in here.effects} == {"1"}, "no attempt was counted"


def test_a_service_manager_hears_ready_alive_and_stopping(here: Stand, tmp_path: Path) -> None:
    """systemd's protocol (`Type=notify`, `WatchdogSec=2`), of one worker, of a fleet and of a scheduler."""
    for number, command in enumerate((("worker",), ("worker", "--processes", "2"), ("scheduler",))):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.bind(str(tmp_path / f"notify-{number}"))
            line.settimeout(60)
            process = here.start(
                *command, "--plugin", "accept", NOTIFY_SOCKET=str(tmp_path / f"notify-{number}"), WATCHDOG_USEC="2000000"
            )
            heard = [line.recv(100).decode() for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            while heard[-1] != "STOPPING=1":
                heard.append(line.recv(100).decode())
            assert process.wait(timeout=60) == 0
        assert heard.count("READY=1") == 1
        assert heard.count("WATCHDOG=1") >= 2


def test_a_worker_that_hangs_is_replaced_when_the_manager_wants_signs_of_life(here: Stand) -> None:
    parent = here.start("worker", "--plugin", "accept", "--processes", "2", WATCHDOG_USEC="2000000")
    wait(lambda: here.log_of(parent).count("worker ready") == 2)
    workers = children_of(parent.pid)
    os.kill(workers[0], signal.SIGSTOP)
    wait(lambda: gone(workers[0]))
    wait(lambda: len(children_of(parent.pid)) == 2)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 0


def test_as_the_first_process_it_passes_signals_on_and_collects_what_is_left(here: Stand) -> None:
    unshare = shutil.which("unshare")
    probe = [str(unshare), "--pid", "--fork", "--mount-proc", "true"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no new PID namespace can be made here")
    process = here.start("worker", "--plugin", "accept", within=[unshare, "--pid", "--fork", "--mount-proc", "--kill-child"])
    wait(lambda: "worker ready" in here.log_of(process))
    (first,) = children_of(process.pid)
    with publisher(here) as jobs:
        jobs.publish(Heavy(n=1, leaves="sleep 0.5"))  # a grandchild in a session of its own, that its parent leaves behind
        wait(lambda: here.marks == [1])
        time.sleep(2)
        (worker,) = children_of(first)
        jobs.publish(Mark(n=2, seconds=1))
        time.sleep(0.3)
        os.kill(first, signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert here.marks == [1, 2]
    assert gone(worker)


def test_passwords_are_not_in_the_process_list(here: Stand) -> None:
    url = here.url.replace("guest:guest@", "guest:guest@")
    for options in (("--url", url), (f"--url={url}",), ("-u", url)):
        process = here.start("worker", "--plugin", "accept", *options)
        wait(lambda process=process: "worker ready" in here.log_of(process))
        title = (Path("/proc") / str(process.pid) / "cmdline").read_text()
        assert "guest:***@" in title
        assert "guest:guest@" not in title
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
