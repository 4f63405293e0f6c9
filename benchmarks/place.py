"""Where systems meet: a private RabbitMQ and, where it is installed, a private Redis; and the versions of all."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.runs import NODE_MODULES, PEERS, Place
from rmqjobs.errors import RmqJobsError
from rmqjobs.testing.broker import PrivateNode, free_port


@contextlib.contextmanager
def meeting_place(folder: Path) -> Iterator[tuple[Place, str]]:
    """A private RabbitMQ, a private Redis if there is one, and their versions."""
    node = PrivateNode(folder)
    node.start()
    with contextlib.ExitStack() as ends:
        ends.callback(node.remove)
        try:
            node.ctl("update_vhost_metadata", "/", "--default-queue-type", "quorum")
            kind = "quorum queues for all"
        except RmqJobsError:
            kind = "quorum queues, a classic one for Dramatiq"
        versions = f"RabbitMQ {node.ctl('version').strip()} ({kind})"
        redis, brokers = "", [node.pid or 0]
        if _has_bullmq():
            redis, pid = ends.enter_context(_redis(folder))
            brokers.append(pid)
            said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
            versions += f", Redis {said.split('v=')[1].split()[0]}"
        yield Place(node.url, redis, folder, brokers), versions


def _has_bullmq() -> bool:
    return bool(shutil.which("node") and shutil.which("redis-server")) and (NODE_MODULES / "ioredis").exists()


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, int]]:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def versions_of_peers() -> str:
    """The versions that are installed."""
    wanted = ["celery", "kombu", "dramatiq", "taskiq", "taskiq-aio-pika", "faststream", "aio-pika"]
    script = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {wanted}}}))"
    said = json.loads(subprocess.run([PEERS, "-c", script], capture_output=True, text=True, check=True).stdout)
    said |= {name: importlib.metadata.version(name) for name in ("pika", "pydantic")}
    if _has_bullmq():
        said["bullmq"] = json.loads((NODE_MODULES / "bullmq" / "package.json").read_text())["version"]
    return ", ".join(f"{name} {version}" for name, version in said.items())
