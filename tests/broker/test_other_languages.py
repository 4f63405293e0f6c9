"""The contract, tried with programs that know nothing of us: C, Node, and HTTP. Skipped where a program is not installed."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rmqjobs import Settings
from rmqjobs.testing.broker import RunningBroker
from tests.helpers import Stage, a_dead_letter, until, working

ROOT = Path(__file__).parents[2]
NODE = """
const amqp = require('amqplib')
const [url, exchange, key, type, body] = process.argv.slice(1)
async function main() {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  channel.publish(exchange, key, Buffer.from(body), { persistent: true, type: type || undefined, messageId: 'from-node' })
  await channel.waitForConfirms()
  await connection.close()
}
main()
"""


async def run(*command: str, env: dict[str, str] | None = None) -> None:
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )
    assert ran.returncode == 0, ran.stderr


async def test_amqp_publish_of_librabbitmq(settings: Settings) -> None:
    if shutil.which("amqp-publish") is None:
        pytest.skip("amqp-publish is not installed (Debian: amqp-tools)")
    stage = Stage()
    target = ["amqp-publish", "--url", settings.url.rstrip("/"), "-e", f"{settings.prefix}.jobs", "-p"]
    async with working(stage, settings):
        await run(*target, "-r", "demo.note", "-b", '{"text": "from C"}')
        await run(*target, "-r", "demo.note", "-C", "application/json", "-b", '{"text": "from C, typed"}')
        await run(*target, "-r", "demo.note", "-b", "from C, broken")
        await until(lambda: len(stage.seen) == 2)
        letter = await a_dead_letter(settings)
    assert {seen[1] for seen in stage.seen} == {"from C", "from C, typed"}
    assert (letter.reason, letter.body) == ("malformed message", b"from C, broken")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    folder = ROOT / ".tools" / "node"
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if not (folder / "node_modules" / "amqplib").exists():
        folder.mkdir(parents=True, exist_ok=True)
        installed = subprocess.run(
            ["npm", "install", "--silent", "--prefix", str(folder), "amqplib"], capture_output=True, check=False
        )
        if installed.returncode:
            pytest.skip(f"amqplib cannot be installed: {installed.stderr.decode()[-200:]}")
    return folder / "node_modules"


async def test_amqplib_of_node(settings: Settings, node_modules: Path) -> None:
    stage, env = Stage(), {"NODE_PATH": str(node_modules)}
    later = ".".join(f"{2:028b}") + ".demo.note"
    async with working(stage, settings):
        await run(
            "node", "-e", NODE, "--", settings.url, f"{settings.prefix}.jobs", "demo.note", "", '{"text": "now"}', env=env
        )
        await run(
            "node",
            "-e",
            NODE,
            "--",
            settings.url,
            f"{settings.prefix}.delay.27",
            later,
            "demo.note",
            '{"text": "later"}',
            env=env,
        )
        await until(lambda: len(stage.seen) == 2)
    assert [seen[1] for seen in stage.seen] == ["now", "later"]


@pytest.mark.parametrize("without_curl", [False, True])
async def test_the_management_api_by_curl_and_by_bash_alone(
    settings: Settings, broker: RunningBroker, without_curl: bool, tmp_path: Path
) -> None:
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    if not without_curl and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    path = os.environ["PATH"]
    if without_curl:
        for tool in ("bash", "env", "cat", "wc", "base64"):
            (tmp_path / tool).symlink_to(str(shutil.which(tool)))
        path = str(tmp_path)
    stage = Stage()
    script = str(ROOT / "examples" / "other_languages" / "publish.sh")
    async with working(stage, settings):
        payload = json.dumps({"text": 'say "hello" \\ bye'})
        await run(script, broker.management_url, "demo.note", payload, env={"RMQJOBS_PREFIX": settings.prefix, "PATH": path})
        await until(lambda: stage.seen)
    assert stage.seen[0][1] == 'say "hello" \\ bye'
