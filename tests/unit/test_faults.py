"""The instruments of the fault matrix are right themselves: a ledger that many write, and a proxy that does what it says."""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import EFFECT, PUBLISHED, Ledger
from tests.faults.matrix import _recovery
from tests.faults.proxy import Proxy


def write(path: Path, first: int) -> None:
    ledger = Ledger(path)
    for n in range(first, first + 100):
        ledger.note(EFFECT, n)
        ledger.note(EFFECT, 0)


def test_many_processes_write_one_ledger(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "ledger.sqlite")
    ledger.note(PUBLISHED, 7)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(ledger.path, first)) for first in (100, 200, 300)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert ledger.count(EFFECT, range(100, 400)) == dict.fromkeys(range(100, 400), 1)
    assert ledger.count(EFFECT, range(1)) == {0: 300}
    assert ledger.count(PUBLISHED, range(1000)) == {7: 1}
    assert set(ledger.times(PUBLISHED, range(1000))) == {7}
    ledger.close()


@pytest.mark.parametrize(
    ("published", "effects", "seconds"),
    [
        ({1: 1.0, 2: 9.0}, {1: 6.0, 2: 9.5}, 4.5),  # what came after the fault was the last to be sure of
        ({1: 1.0, 2: 6.0}, {1: 8.0, 2: 6.1}, 3.0),  # what came before took longer
        ({1: 1.0}, {1: 2.0}, 0.0),
        ({1: 1.0, 2: 9.0}, {1: 2.0}, None),  # nothing flows any more
        ({1: 1.0}, {}, None),
    ],
)
def test_recovery_is_when_old_and_new_jobs_are_done(
    published: dict[int, float], effects: dict[int, float], seconds: float | None
) -> None:
    assert _recovery(published, effects, 5.0) == seconds


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers what it is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(100):
                connection.sendall(data)
        except OSError:
            return


def client(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    connection.sendall(b"hello")
    assert connection.recv(10) == b"hello"
    return connection


def test_the_proxy_passes_cuts_resets_swallows_and_refuses(echo: int) -> None:
    with Proxy(echo) as proxy:
        with client(proxy) as connection:
            proxy.cut()
            assert connection.recv(10) == b""
        with client(proxy) as connection:
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                connection.recv(10)
        with client(proxy) as connection:
            proxy.swallow()
            connection.settimeout(0.3)
            connection.sendall(b"into the void")
            with pytest.raises(TimeoutError):
                connection.recv(10)
        with client(proxy) as connection:
            proxy.slow(0.2)
            connection.settimeout(0.1)
            connection.sendall(b"later")
            with pytest.raises(TimeoutError):
                connection.recv(10)
            proxy.slow(0)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), timeout=1)
        proxy.admit()
        client(proxy).close()


def test_of_several_targets_a_dead_one_is_passed_over(echo: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    with Proxy(dead, echo) as proxy:
        for _ in range(3):
            client(proxy).close()
