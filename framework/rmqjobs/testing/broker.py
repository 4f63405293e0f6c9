"""A real RabbitMQ for tests and demos: the one of an environment variable, else a private node, else a container.

A private node runs from a local `rabbitmq-server` under the current user, with data, names and ports of its own, beside any
other node of the machine; nothing of it is left when it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmqjobs.errors import RmqJobsError
from rmqjobs.settings import mask_url

START_TIMEOUT = 60.0
_SERVER_PLACES = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
)
_GREETING = b"AMQP\x00\x00\x09\x01"


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that can be used now.

    Args:
        url: AMQP URL.
        how: Where it comes from, in words.
        management_url: Its HTTP API, if known.
    """

    url: str
    how: str
    management_url: str | None = None


class NoBroker(RmqJobsError):
    """There is no RabbitMQ here and no way to start one."""

    code = "RJ1310"

    def __init__(self) -> None:
        advice = {
            "darwin": "Install one with: brew install rabbitmq",
            "win32": "Start Docker Desktop, or set RMQJOBS_URL to a RabbitMQ elsewhere",
        }.get(sys.platform, "Install one with: apt-get install rabbitmq-server (or dnf, pacman, zypper), or start Docker")
        super().__init__(f"no RabbitMQ: RMQJOBS_URL is not set, no rabbitmq-server is installed and no Docker runs. {advice}")


@contextmanager
def running_broker(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Iterator[RunningBroker]:
    """A broker for as long as the context lasts.

    Args:
        environ: `RMQJOBS_TEST_URL` or `RMQJOBS_URL` name a broker to use; `RMQJOBS_RABBITMQ` a folder with a server.
        directory: Where a private node keeps its data; the system's temporary folder unless given.

    Raises:
        NoBroker: There is none; says what to install.
    """
    environ = os.environ if environ is None else environ
    url = environ.get("RMQJOBS_TEST_URL") or environ.get("RMQJOBS_URL")
    server = _server(environ)
    if url:
        yield RunningBroker(url, f"the broker at {mask_url(url)}", environ.get("RMQJOBS_MANAGEMENT_URL"))
    elif server is not None:
        with _private_node(server, environ, directory) as broker:
            yield broker
    elif _docker_runs():
        with _container() as broker:
            yield broker
    else:
        raise NoBroker


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server(environ: Mapping[str, str]) -> Path | None:
    own = environ.get("RMQJOBS_RABBITMQ")
    places = [Path(own) / "rabbitmq-server"] if own else []
    places += [Path(place) for place in _SERVER_PLACES]
    return next((place for place in places if os.access(place, os.X_OK)), None)


@contextmanager
def _private_node(server: Path, environ: Mapping[str, str], directory: Path | None) -> Iterator[RunningBroker]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="rabbitmq-", dir=directory)).resolve()
    amqp, management, distribution, epmd = (free_port() for _ in range(4))
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        "disk_free_limit.absolute = 50MB\n"
    )
    (home / "enabled_plugins").write_text("[rabbitmq_management].\n")
    node_environ = {name: value for name, value in environ.items() if not name.startswith("RABBITMQ_")} | {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"rmqjobs-{amqp}@localhost",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [server],
            env=node_environ,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_start(process, amqp, home)
        yield RunningBroker(
            f"amqp://guest:guest@127.0.0.1:{amqp}/",
            f"a private RabbitMQ node on port {amqp}",
            f"http://guest:guest@127.0.0.1:{management}",
        )
    finally:
        _end(process, server, node_environ)
        shutil.rmtree(home, ignore_errors=True)


def _await_start(process: subprocess.Popen[bytes], port: int, home: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(_GREETING)
                if connection.recv(1):
                    return
        except OSError:
            time.sleep(0.1)
    logs = sorted((home / "log").glob("*.log")) if (home / "log").exists() else []
    tail = "\n".join(part.read_text(errors="replace")[-1500:] for part in [home / "output", *logs])
    raise RmqJobsError(f"the private RabbitMQ node did not start within {START_TIMEOUT:g} s. The end of its logs:\n{tail}")


def _end(process: subprocess.Popen[bytes], server: Path, environ: Mapping[str, str]) -> None:
    """Its data goes away with it, so it is killed; then its name server, which outlives nodes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    beside = server.with_name("epmd")
    epmd = str(beside) if beside.exists() else shutil.which("epmd")
    if epmd is None:
        return
    for _ in range(50):  # it refuses to go while it still believes in the node
        ended = subprocess.run([epmd, "-kill"], env=dict(environ), capture_output=True, check=False)
        if b"Killed" in ended.stdout or b"Cannot connect" in ended.stdout + ended.stderr:
            return
        time.sleep(0.1)


def _docker_runs() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


@contextmanager
def _container() -> Iterator[RunningBroker]:
    try:
        from testcontainers.rabbitmq import RabbitMqContainer  # noqa: PLC0415 - an extra
    except ImportError:
        raise RmqJobsError("Docker runs, but testcontainers is not installed: pip install 'rmqjobs[testing]'") from None
    container: Any = RabbitMqContainer("rabbitmq:4-management").with_exposed_ports(15672)
    with container:
        host = container.get_container_host_ip()
        port, management = container.get_exposed_port(5672), container.get_exposed_port(15672)
        yield RunningBroker(
            f"amqp://guest:guest@{host}:{port}/", "a RabbitMQ container", f"http://guest:guest@{host}:{management}"
        )
