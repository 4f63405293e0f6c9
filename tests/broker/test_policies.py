"""Policies that somebody set for everything, at a real broker: what they do is said, and the shield keeps them away."""

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rmqjobs import AsyncPublisher, Settings
from rmqjobs.testing.broker import RunningBroker
from tests.acceptance.helpers import Stand, stand
from tests.helpers import Note, Stage, depth, has_policy, manage, policy, probe, publishing, until, working

DROPPING = {"max-length": 20, "overflow": "drop-head"}


@pytest.fixture
def looked_at(broker: RunningBroker, settings: Settings) -> Settings:
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    return settings


@pytest.fixture
def here(tmp_path: Path, looked_at: Settings, broker: RunningBroker) -> Iterator[Stand]:
    with stand(tmp_path, looked_at.url, looked_at.prefix) as made:
        made.cli("topology", "apply", "--plugin", "accept")
        yield made


def judged(here: Stand, settings: Settings, *, code: int) -> list[dict[str, Any]]:
    """What the doctor says of policies."""
    ran = here.cli("doctor", "--plugin", "accept", "--json", code=code, RMQJOBS_MANAGEMENT_URL=settings.management_url or "")
    found: list[dict[str, Any]] = json.loads(ran.stdout)["findings"]
    return [each for each in found if each["check"] == "policies"]


async def confirmed(settings: Settings, count: int) -> None:
    async with AsyncPublisher(settings=settings) as publisher:
        for n in range(count):
            await publisher.publish_json("accept.mark", {"n": n})


@pytest.mark.parametrize(
    ("definition", "severity", "says"),
    [
        (DROPPING, "error", "loses confirmed jobs"),
        ({"message-ttl": 3_600_000}, "error", "loses confirmed jobs"),
        ({"max-length": 5_000, "overflow": "reject-publish"}, "warning", "makes queues refuse jobs"),
    ],
)
async def test_the_doctor_says_what_a_policy_does_once(
    here: Stand, looked_at: Settings, broker: RunningBroker, definition: dict[str, Any], severity: str, says: str
) -> None:
    with policy(broker, looked_at.prefix, definition) as name:
        (found,) = judged(here, looked_at, code=7 if severity == "error" else 0)
    assert found["severity"] == severity
    assert name in found["summary"]
    assert says in found["summary"]
    assert found["mend"] == "rmqjobs topology apply --shield --plugin accept"


async def test_the_shield_keeps_a_policy_away_that_makes_jobs_vanish(
    here: Stand, looked_at: Settings, broker: RunningBroker
) -> None:
    api = looked_at.management_url or ""
    with policy(broker, looked_at.prefix, DROPPING) as name:
        await confirmed(looked_at, 130)
        await until(lambda: depth(looked_at, "accept"))
        assert await depth(looked_at, "accept") + await depth(looked_at, "accept.dead") < 130, "confirmed jobs are gone"

        planned = here.cli("topology", "plan", "--plugin", "accept", "--shield", RMQJOBS_MANAGEMENT_URL=api)
        assert f"{looked_at.prefix}-shield" in planned.stdout
        assert name in planned.stdout
        applied = here.cli("topology", "apply", "--plugin", "accept", "--shield", RMQJOBS_MANAGEMENT_URL=api)
        assert "priority 1,000" in applied.stderr
        shielded = partial(has_policy, broker, f"^{looked_at.prefix}", f"{looked_at.prefix}-shield")
        await until(lambda: all(shielded()))
        assert [each["severity"] for each in judged(here, looked_at, code=7)] == ["ok"]  # 7: nobody consumes them
        before = await depth(looked_at, "accept")
        await confirmed(looked_at, 130)
        assert await depth(looked_at, "accept") == before + 130
        again = here.cli("topology", "plan", "--plugin", "accept", "--shield", RMQJOBS_MANAGEMENT_URL=api)
        assert [line.split()[0] for line in again.stdout.splitlines()[1:]] == []
        assert "nothing to change" in again.stderr
    manage(broker, "DELETE", f"policies/%2F/{looked_at.prefix}-shield")


async def test_an_operator_policy_cannot_be_kept_away_and_it_says_so(
    here: Stand, looked_at: Settings, broker: RunningBroker
) -> None:
    api = looked_at.management_url or ""
    with policy(broker, looked_at.prefix, {"message-ttl": 60_000}, kind="operator-policies") as name:
        (found,) = judged(here, looked_at, code=7)
        assert found["mend"] == f"rabbitmqctl clear_operator_policy -p / {name}"
        applied = here.cli("topology", "apply", "--plugin", "accept", "--shield", RMQJOBS_MANAGEMENT_URL=api)
        assert f"A shield does not help; end it with: rabbitmqctl clear_operator_policy -p / {name}" in applied.stderr
    manage(broker, "DELETE", f"policies/%2F/{looked_at.prefix}-shield")


async def test_without_the_management_api_the_shield_is_a_command(here: Stand, looked_at: Settings) -> None:
    dead = "http://guest:guest@127.0.0.1:1"
    ran = here.cli("topology", "apply", "--plugin", "accept", "--shield", code=6, RMQJOBS_MANAGEMENT_URL=dead)
    assert "no management API answers at 127.0.0.1:1" in ran.stderr
    shown = here.cli("topology", "show", "--plugin", "accept", "--shield")
    assert shown.stdout.startswith("rabbitmqctl set_policy -p / --priority 1000 --apply-to queues")


async def test_a_worker_and_a_publisher_say_so_at_their_start(
    looked_at: Settings, broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    async with working(stage, looked_at):
        pass  # the queues are there
    with policy(broker, looked_at.prefix, DROPPING):
        async with working(stage, looked_at) as worker:
            await until(lambda: worker.trouble)
            assert "loses confirmed jobs" in worker.trouble
            assert worker.is_ready, "jobs run all the same"
            (family,) = worker.policies.collect()
            assert {sample.labels["effect"]: sample.value for sample in family.samples}["loses"] == 1
        caplog.clear()
        async with publishing(looked_at) as publisher:
            await publisher.publish(Note(text="x"))
            await until(lambda: any("loses confirmed jobs" in each for each in caplog.messages))
    said = [each for each in caplog.records if "loses" in each.message]
    assert [each.levelno for each in said] == [logging.ERROR]
    assert "max-length = 20" in said[0].__dict__["because"]


async def test_the_scheduler_is_not_ready_while_jobs_vanish(here: Stand, looked_at: Settings, broker: RunningBroker) -> None:
    with policy(broker, looked_at.prefix, {"expires": 60_000_000}):
        scheduler = here.start("scheduler", "--metrics-port", "0", RMQJOBS_MANAGEMENT_URL=looked_at.management_url or "")
        await until(lambda: "loses confirmed" in here.log_of(scheduler))
        address = next(json.loads(line)["address"] for line in here.log_of(scheduler).splitlines() if '"probes"' in line)
        port = address.rpartition(":")[2]
        status, says = await asyncio.to_thread(probe, int(port), "/readyz")
        assert (status, "loses confirmed jobs" in says) == (503, True)
        _, metrics = await asyncio.to_thread(probe, int(port), "/metrics")
        assert 'rmqjobs_harmful_policies{effect="loses"} 1.0' in metrics
