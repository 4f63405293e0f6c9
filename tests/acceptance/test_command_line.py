"""The commands, as an operator types them, with their exit codes."""

import json
import signal
from pathlib import Path

import pytest

from rmqjobs.testing.broker import free_port
from tests.acceptance.helpers import Stand
from tests.helpers import wait


def test_publish_work_fail_list_show_replay_drop_restore(here: Stand) -> None:
    good = here.cli("publish", "accept.mark", '{"n": 7}').stdout.strip()
    worker = here.worker()
    wait(lambda: here.marks == [7])
    bad = here.cli("publish", "accept.mark", "-", stdin='{"n": -1}').stdout.strip()
    (letter,) = wait(lambda: json.loads(here.cli("dlq", "list", "--json").stdout))
    assert (letter["id"], letter["type"], letter["reason"]) == (bad, "accept.mark", "attempts exhausted")
    shown = here.cli("dlq", "show", bad[:30]).stdout
    assert all(part in shown for part in ("ValueError", "negative", '"n": -1', "rmqjobs-accept 1.0", "Traceback"))
    assert "Traceback" in json.loads(here.cli("dlq", "show", bad, "--json").stdout)["traceback"]

    here.cli("dlq", "replay", code=2)  # everything? only with --all
    assert "add --yes" in here.cli("dlq", "replay", bad, code=2).stderr
    assert "dry run" in here.cli("dlq", "drop", "--type", "accept.mark", "--dry-run").stderr
    assert "1 done" in here.cli("dlq", "drop", "--error", "negative", "--yes", "--because", "a test").stderr
    assert json.loads(here.cli("dlq", "list", "--json").stdout) == []
    assert bad in here.cli("dlq", "list", "--dropped").stdout
    assert json.loads(here.cli("dlq", "restore", bad, "--yes", "--json").stdout) == {
        "action": "restore",
        "done": [bad],
        "failed": [],
    }
    assert "accept" in here.cli("dlq", "stats").stdout
    here.cli("dlq", "replay", "--all", "--yes")
    wait(lambda: [each["replays"] for each in json.loads(here.cli("dlq", "list", "--json").stdout)] == [1])
    here.cli("dlq", "replay", "no-such-id", "--yes", code=5)
    here.cli("dlq", "show", "no-such-id", code=5)

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    records = [json.loads(line) for line in here.cli("events").stdout.splitlines()]
    assert {(record["job"], record["kind"]) for record in records} >= {
        (good, "succeeded"),
        (bad, "retried"),
        (bad, "dead"),
        (bad, "dropped"),
        (bad, "restored"),
        (bad, "replayed"),
    }
    assert {record["kind"] for record in map(json.loads, here.cli("events", "--kind", "dead").stdout.splitlines())} == {"dead"}


def test_topology_and_plugins(here: Stand) -> None:
    names = {
        queue["name"] for queue in json.loads(here.cli("topology", "show", "--json", "--plugin", "accept").stdout)["queues"]
    }
    assert {f"{here.prefix}.accept", f"{here.prefix}.accept.dead", f"{here.prefix}.delay.27"} <= names
    assert "declared" in here.cli("topology", "apply", "--plugin", "accept").stderr
    assert "rmqjobs-accept" in here.cli("plugins", "list").stdout
    checked = json.loads(here.cli("plugins", "check", "accept", "--json").stdout)
    assert [row["type"] for row in checked["handlers"]] == [
        f"accept.{name}" for name in ("mark", "heavy", "void", "refused", "tick", "fatal")
    ]
    assert here.cli("hello", "--name", "ada").stdout == "hello ada\n"
    assert "worker ready" not in here.cli("worker", "--plugin", "accept", "--check").stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["worker", "--plugin", "acept"], {}, 2, "Did you mean 'accept'"),
        (["worker"], {"RMQJOBS_URL": "amqp://guest:topsecret@127.0.0.1:{port}/"}, 6, "no RabbitMQ answers at 127.0.0.1"),
        (["dlq", "list"], {"RMQJOBS_URL": "amqp://guest:topsecret@127.0.0.1:{port}/"}, 6, "no RabbitMQ answers"),
        (
            ["publish", "accept.mark", '{"n":1}'],
            {"RMQJOBS_URL": "amqp://guest:topsecret@127.0.0.1:{port}/"},
            6,
            "not published",
        ),
        (["worker"], {"RMQJOBS_URL": "http://guest:topsecret@x/"}, 2, "guest:***@x"),
        (["worker"], {"RMQJOBS_GRACE": "soon"}, 2, "RMQJOBS_GRACE"),
        (["worker"], {"RMQJOBS_EVENT_LOOP": "trio"}, 2, "asyncio, uvloop, or auto"),
        (["publish", "accept.mark", '{"n": "x"}'], {}, 7, "n: Input should be a valid integer"),
        (["publish", "accept.mark", "{"], {}, 7, "JSON"),
        (["publish", "Bad Type", "{}", "--no-validate"], {}, 7, "'Bad Type'"),
        (["publish", "accept.mark", '{"n":1}', "--delay", "4000d"], {}, 7, "impossible"),
        (["publish", "accept.mark", '{"n":1}', "--delay", "soon"], {}, 2, "'soon'"),
        (["publish", "accept.mark", "@/no/such/file"], {}, 2, "/no/such/file"),
        (["events", "--kind", "exploded"], {}, 2, "exploded"),
        (["dlq", "list", "--queue", "nowhere"], {}, 2, "nowhere"),
        (["topology", "show", "-c", "/no/such.toml"], {}, 2, "/no/such.toml"),
    ],
)
def test_a_mistake_is_one_clear_sentence_and_an_exit_code(
    here: Stand, arguments: list[str], environ: dict[str, str], code: int, said: str
) -> None:
    environ = {name: value.replace("{port}", str(free_port())) for name, value in environ.items()}
    ran = here.cli(*arguments, code=code, **environ)
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "topsecret" not in ran.stderr
    assert ran.stdout == ""


def test_the_file_is_read_and_the_environment_wins(here: Stand, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('prefix = "from-file"\n')
    command = ["topology", "show", "--json", "--plugin", "accept", "-c", str(file)]
    environ = here.environ
    assert f'"{here.prefix}.jobs"' in here.cli(*command).stdout
    assert "RMQJOBS_PREFIX" in environ
    file.write_text("prefix = [\n")
    assert "is not TOML" in here.cli(*command, code=2).stderr
