"""A real RabbitMQ for tests and demos: the one that an environment variable names, else a private node, else a container.

A private node runs from a local `rabbitmq-server` under the current user, with data, names and ports of its own, beside any
other node of the machine; nothing of it is left when it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
        super().__init__(
            f"no RabbitMQ: RMQJOBS_URL is not set, rabbitmq-server is not installed and Docker is not running. {advice}"
        )


@contextmanager
def running_broker(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Iterator[RunningBroker]:
    """A broker for as long as the context lasts.

    Args:
        environ: `RMQJOBS_TEST_URL` or `RMQJOBS_URL` name a broker to use; `RMQJOBS_RABBITMQ` a folder with a server.
        directory: Where a private node keeps its data; by default the system's temporary folder.

    Raises:
        NoBroker: There is none; the message says what to install.
    """
    environ = os.environ if environ is None else environ
    url = environ.get("RMQJOBS_TEST_URL") or environ.get("RMQJOBS_URL")
    if url:
        yield RunningBroker(url, f"the broker at {mask_url(url)}", environ.get("RMQJOBS_MANAGEMENT_URL"))
    elif _server(environ) is not None:
        node = PrivateNode(directory, environ)
        node.start()
        try:
            yield node.broker
        finally:
            node.remove()
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


class PrivateNode:
    """A RabbitMQ node under the current user, with data, names and ports of its own.

    Args:
        directory: Where it keeps its data; by default the system's temporary folder.
        environ: `RMQJOBS_RABBITMQ` may name a folder with a server.
        config: Further lines of its `rabbitmq.conf`; `{home}` in them is the folder that it sees.
        files: Files that it needs to see, such as certificates; copied into that folder.
        beside: A node that it may form a cluster with; see `join`.

    Raises:
        NoBroker: No `rabbitmq-server` is installed.
    """

    def __init__(
        self,
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        config: Sequence[str] = (),
        files: Sequence[Path] = (),
        beside: PrivateNode | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        server = _server(environ)
        if server is None:
            raise NoBroker
        self._server = server
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self._home = Path(tempfile.mkdtemp(prefix="rabbitmq-", dir=directory)).resolve()
        self._amqp, self._management, distribution, own_epmd = (free_port() for _ in range(4))
        self.name = f"rmqjobs-{self._amqp}@localhost"
        # Nodes of one cluster share a secret and a name server.
        self.cookie: str = beside.cookie if beside else secrets.token_hex(10)
        self.epmd: int = beside.epmd if beside else own_epmd
        cookie = self._home / ".erlang.cookie"
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        (self._home / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self._amqp}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management}\n"
            "disk_free_limit.absolute = 50MB\n" + "".join(line.replace("{home}", str(self._home)) + "\n" for line in config)
        )
        for file in files:
            shutil.copy(file, self._home)
        (self._home / "enabled_plugins").write_text("[rabbitmq_management].\n")
        self._environ = {name: value for name, value in environ.items() if not name.startswith("RABBITMQ_")} | {
            "HOME": str(self._home),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process that it runs in, or of that one's parent; None when it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def port(self) -> int:
        """Its AMQP port."""
        return self._amqp

    @property
    def url(self) -> str:
        """Its AMQP URL."""
        return f"amqp://guest:guest@127.0.0.1:{self._amqp}/"

    @property
    def broker(self) -> RunningBroker:
        """The node as a `RunningBroker`."""
        management = f"http://guest:guest@127.0.0.1:{self._management}"
        return RunningBroker(self.url, f"a private RabbitMQ node on port {self._amqp}", management)

    def start(self) -> None:
        """Starts it, with the data it has, and waits until it answers."""
        with (self._home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._server],
                env=self._environ,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.1)
        logs = sorted((self._home / "log").glob("*.log")) if (self._home / "log").exists() else []
        tail = "\n".join(part.read_text(errors="replace")[-1500:] for part in [self._home / "output", *logs])
        self.remove()
        raise RmqJobsError(f"the private RabbitMQ node did not start within {START_TIMEOUT:g} s. The end of its logs:\n{tail}")

    def kill(self) -> None:
        """Ends it as kill -9 would; its data stays."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stops it as an operator would; its data stays."""
        self.ctl("stop")
        if self._process is not None:
            self._process.wait(START_TIMEOUT)
        self.kill()

    def join(self, other: PrivateNode) -> None:
        """Makes this node, which must be running and empty, a member of the other one's cluster."""
        for command in (("stop_app",), ("join_cluster", other.name), ("start_app",)):
            self.ctl(*command)

    def cut_off_from(self, *others: PrivateNode) -> None:
        """Partitions the cluster: nothing passes between this node and these others any more."""
        for other in others:
            self.ctl("eval", f"erlang:set_cookie('{other.name}', cut), erlang:disconnect_node('{other.name}').")

    def reach(self, *others: PrivateNode) -> None:
        """Ends such a partition."""
        for other in others:
            self.ctl("eval", f"erlang:set_cookie('{other.name}', '{self.cookie}'), net_adm:ping('{other.name}').")

    def ctl(self, *arguments: str) -> str:
        """Runs `rabbitmqctl` against it and returns what that printed; if it fails, raises `RmqJobsError` with that."""
        command = [str(self._server.with_name("rabbitmqctl")), "-q", *arguments]
        ran = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RmqJobsError(f"rabbitmqctl {' '.join(arguments)} failed with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def remove(self) -> None:
        """Ends it, its name server and its data."""
        self.kill()
        self._end_name_server()
        shutil.rmtree(self._home, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._amqp), timeout=2) as connection:
                connection.sendall(_GREETING)
                return bool(connection.recv(1))
        except OSError:
            return False

    def _end_name_server(self) -> None:
        """Ends the name server, which outlives nodes and refuses to end while it still knows one."""
        beside = self._server.with_name("epmd")
        epmd = str(beside) if beside.exists() else shutil.which("epmd")
        for _ in range(50 if epmd else 0):
            ended = subprocess.run([str(epmd), "-kill"], env=self._environ, capture_output=True, check=False)
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
