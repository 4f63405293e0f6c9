"""Commands that meet odd input: text that is not UTF-8, and plugins that end the process."""

import json
import os
import subprocess
import sys

import pytest

from tests.acceptance.helpers import Stand
from tests.helpers import wait

ODD = """
import os
from rmqjobs import Job, Payload, Plugin

class Read(Payload, type="odd.read"): ...

plugin = Plugin("odd")

@plugin.handler
async def read(payload: Read, job: Job) -> None:
    job.log("reading", file=os.fsdecode(b"caf\\xe9.mp4"))
"""
ENDS = 'import sys\nsys.exit("missing configuration")\n'


def install(here: Stand, name: str, code: str) -> None:
    """A plugin beside the stand's own, installed as a distribution."""
    info = here.folder / "site" / f"rmqjobs_{name}-1.0.dist-info"
    info.mkdir()
    (here.folder / "site" / f"rmqjobs_{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rmqjobs-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rmqjobs.plugins]\n{name} = rmqjobs_{name}:plugin\n")


def test_a_log_of_a_file_name_that_is_no_text_is_shown_and_what_comes_after_it(here: Stand) -> None:
    install(here, "odd", ODD)
    worker = here.start("worker", "--plugin", "odd")
    wait(lambda: "worker ready" in here.log_of(worker))
    here.cli("publish", "odd.read", "{}")
    here.cli("publish", "odd.read", "{}")
    wait(lambda: here.cli("events", "--kind", "succeeded").stdout.count("\n") == 2)
    shown = [json.loads(line) for line in here.cli("events", "--kind", "log").stdout.splitlines()]
    assert [record["data"]["file"] for record in shown] == [r"caf\udce9.mp4"] * 2


def test_an_argument_that_is_no_text_is_an_argument(here: Stand) -> None:
    command = [sys.executable, "-m", "rmqjobs", "publish", "accept.mark", '{"n": 1}', "--job-id", os.fsdecode(b"caf\xe9")]
    ran = subprocess.run(command, env=here.environ, capture_output=True, text=True, timeout=60, check=False, cwd=here.folder)
    assert ran.returncode == 7, ran.stderr
    assert r"job_id is 'caf\udce9', which UTF-8 cannot write" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "command", [["plugins", "check", "ends"], ["plugins", "check"], ["worker"], ["dlq", "list"]], ids=" ".join
)
def test_a_plugin_that_ends_the_process_is_named(here: Stand, command: list[str]) -> None:
    install(here, "ends", ENDS)
    ran = here.cli(*command, code=2)
    assert "RJ1200" in ran.stderr
    assert "'ends'" in ran.stderr
    assert "missing configuration" in ran.stderr
    assert "Traceback" not in ran.stderr
