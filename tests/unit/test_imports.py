"""What each role imports, and above all what it does not: start and memory are made of that."""

import subprocess
import sys

import pytest

CONTROL = {"aio_pika", "aiormq", "httpx2", "cron_descriptor"}
FOR_PEOPLE = {"rich", "structlog", "humanize", "pygments"}
SERVERS = {"prometheus_client", "wsgiref", "http.server"}
SELDOM = {"rmqjobs.schedule", "rmqjobs.cron", "croniter", "urllib.request", "http.client", "tomllib", "rmqjobs.cli.fleet"}


def imported_by(statement: str) -> set[str]:
    """All modules after it, in an interpreter of its own."""
    command = [sys.executable, "-c", f"import sys\n{statement}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import rmqjobs", {"pydantic", "asyncio", "pika", "pluggy", "rmqjobs.plugin", "rmqjobs.errors"}),
        ("from rmqjobs import Payload, Plugin", CONTROL | FOR_PEOPLE | SERVERS | SELDOM | {"pika", "asyncio", "cyclopts"}),
        (
            "from rmqjobs import AsyncPublisher, Payload, Publisher",
            CONTROL | FOR_PEOPLE | SERVERS | SELDOM | {"cyclopts", "pluggy"},
        ),
        ("import rmqjobs.cli.worker", CONTROL | FOR_PEOPLE | SERVERS | SELDOM),
        ("import rmqjobs.execution.child", CONTROL | FOR_PEOPLE | SERVERS | {"pika", "cyclopts", "pluggy"}),
        ("import rmqjobs.cli", CONTROL | SERVERS | {"pika", "asyncio", "rmqjobs.worker", "rmqjobs.publisher"}),
    ],
)
def test_heavy_imports_only_where_they_are_used(statement: str, unwanted: set[str]) -> None:
    assert imported_by(statement) & unwanted == set()


def test_a_worker_that_runs_has_not_imported_more() -> None:
    script = """
import asyncio
from rmqjobs import Plugin, Settings
from rmqjobs.cli import logs
from rmqjobs.plugins import registry_of
from rmqjobs.probes import Probes
from rmqjobs.worker import Worker
logs.configure("json")
async def main():
    worker = Worker(registry_of(Plugin("none")), Settings(url="amqp://127.0.0.1:1/"))
    async with Probes(Settings(), role="worker", collectors=(), trouble=str):
        try:
            await worker.start()
        except Exception as error:
            assert "127.0.0.1:1" in str(error)
asyncio.run(main())
"""
    assert imported_by(script) & (CONTROL | FOR_PEOPLE | SERVERS) == set()
