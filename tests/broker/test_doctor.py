"""The doctor at a real broker: what is broken on purpose is found, and what it says to do mends it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmqjobs import Settings
from rmqjobs.testing.broker import RunningBroker
from tests.acceptance.helpers import Stand, stand
from tests.helpers import policy, publish_raw, raw_channel, until


@pytest.fixture
def here(tmp_path: Path, settings: Settings) -> Iterator[Stand]:
    with stand(tmp_path, settings.url, settings.prefix) as made:
        yield made


def seen_by(here: Stand, settings: Settings, *, code: int) -> dict[str, dict[str, Any]]:
    """What is wrong, by check."""
    ran = here.cli("doctor", "--plugin", "accept", "--json", code=code, RMQJOBS_MANAGEMENT_URL=settings.management_url or "")
    found = json.loads(ran.stdout)["findings"]
    return {each["check"]: each for each in found if each["severity"] in ("warning", "error")}


@pytest.fixture
def looked_at(broker: RunningBroker, settings: Settings) -> Settings:
    if broker.management_url is None:
        pytest.skip("RMQJOBS_MANAGEMENT_URL is not set")
    return settings


async def test_from_nothing_to_healthy_by_the_commands_it_names(here: Stand, looked_at: Settings) -> None:
    found = seen_by(here, looked_at, code=7)
    assert set(found) == {"topology"}
    here.cli(*found["topology"]["mend"].split()[1:])  # rmqjobs topology apply
    found = seen_by(here, looked_at, code=0)
    assert set(found) == {"consumers"}
    worker = here.start(*found["consumers"]["mend"].split()[1:])  # rmqjobs worker --plugin accept
    await until(lambda: "worker ready" in here.log_of(worker))
    await until(lambda: seen_by(here, looked_at, code=0) == {})


async def test_what_is_broken_on_purpose_is_found(here: Stand, looked_at: Settings, broker: RunningBroker) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    prefix = looked_at.prefix
    await publish_raw(looked_at, b"{}", key="nobody.knows")
    await publish_raw(looked_at, b"{}", key="accept.mark")
    harmful = policy(broker, prefix, {"message-ttl": 600_000}, queues="accept$")
    async with raw_channel(looked_at) as channel:
        queue = await channel.get_queue(f"{prefix}.accept.process")
        await queue.unbind(f"{prefix}.jobs", "accept.heavy")
        ladder = await channel.get_queue(f"{prefix}.delay.05")
        await ladder.consume(asyncio.Queue[object]().put)
        with harmful as name:
            found = seen_by(here, looked_at, code=7)
    severities = {check: each["severity"] for check, each in found.items() if check != "consumers"}
    assert severities == {"topology": "error", "unrouted": "warning", "delay-ladder": "error", "policies": "error"}
    assert name in found["policies"]["summary"]
    assert found["policies"]["mend"] == "rmqjobs topology apply --shield --plugin accept"
    assert f"{prefix}.delay.05" in found["delay-ladder"]["evidence"]


async def test_for_people_it_is_a_few_lines(here: Stand, looked_at: Settings) -> None:
    here.cli("topology", "apply", "--plugin", "accept")
    ran = here.cli("doctor", "--plugin", "accept", RMQJOBS_MANAGEMENT_URL=looked_at.management_url or "")
    assert "warning consumers: nobody consumes 'accept'" in ran.stdout
    assert "mend: rmqjobs worker --plugin accept" in ran.stdout
    assert "guest:***@" in ran.stdout
    everything = here.cli("doctor", "--plugin", "accept", "--all", RMQJOBS_MANAGEMENT_URL=looked_at.management_url or "")
    assert "ok      alarms: No memory or disk alarm is in effect." in everything.stdout


async def test_without_a_broker_it_says_so(here: Stand) -> None:
    assert "no RabbitMQ answers" in here.cli("doctor", "--url", "amqp://localhost:1/", code=6).stderr
