"""Names and arguments, and the delay ladder as a model: any delay takes exactly its seconds."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rmqjobs.job import Payload
from rmqjobs.plugin import Plugin
from rmqjobs.topology import LADDER_LEVELS, MAX_DELAY, Names, Topology, build, delay_route, job_type_of_key

GOLDEN = Path(__file__).parent / "topology.golden.json"


class Transcode(Payload, type="video.transcode"): ...


class Clean(Payload, type="video.clean"): ...


plugin = Plugin("video")


@plugin.handler(pool="process")
def transcode(payload: Transcode) -> None: ...


@plugin.handler(singleton=True)
async def clean(payload: Clean) -> None: ...


TOPOLOGY = build(plugin.rmqjobs_handlers())


def test_names_and_arguments_are_those_of_version_1() -> None:
    """RabbitMQ never changes arguments: a difference here locks every existing installation out."""
    assert json.loads(json.dumps(asdict(TOPOLOGY))) == json.loads(GOLDEN.read_text())


def test_every_name_begins_with_the_prefix_and_fits() -> None:
    other = build(plugin.rmqjobs_handlers(), "acme")
    names = [each.name for each in (*other.exchanges, *other.queues)]
    assert [name for name in names if not name.startswith("acme.") or len(name) > 255] == []


def test_the_jobs_exchange_comes_after_all_it_announces() -> None:
    assert TOPOLOGY.exchanges[-1].name == "rmqjobs.jobs"


def test_every_binding_joins_things_that_are_declared() -> None:
    exchanges, queues = {each.name for each in TOPOLOGY.exchanges}, {each.name for each in TOPOLOGY.queues}
    for binding in TOPOLOGY.bindings:
        assert binding.source in exchanges
        assert binding.destination in (exchanges if binding.to_exchange else queues)


def test_no_job_type_stays_bound_to_a_former_queue() -> None:
    bound = {(each.key, each.destination) for each in TOPOLOGY.bindings}
    obsolete = {(each.key, each.destination) for each in TOPOLOGY.obsolete}
    assert ("video.transcode", "rmqjobs.video") in obsolete
    assert ("video.transcode", "rmqjobs.video.thread") in obsolete
    assert bound & obsolete == set()


def matches(pattern: str, key: str) -> bool:
    """AMQP topic matching, for patterns with `#` only at the end."""
    words, parts = key.split("."), pattern.split(".")
    if parts[-1] == "#":
        parts = parts[:-1]
        words = words[: len(parts)]
    return len(words) == len(parts) and all(part in ("*", word) for part, word in zip(parts, words, strict=True))


def ride(topology: Topology, exchange: str, key: str) -> tuple[int, list[str]]:
    """Seconds a message waits on its way, and the work queues it ends in: a broker of a few lines."""
    ttl = {queue.name: queue.arguments.get("x-message-ttl") for queue in topology.queues}
    after = {queue.name: queue.arguments.get("x-dead-letter-exchange") for queue in topology.queues}
    waited, ends, left = 0, [], [exchange]
    while left:
        here = left.pop()
        for binding in topology.bindings:
            if binding.source != here or not matches(binding.key, key):
                continue
            if binding.to_exchange:
                left.append(binding.destination)
            elif binding.destination.startswith("rmqjobs.delay."):
                waited += ttl[binding.destination] // 1000
                left.append(after[binding.destination])
            else:
                ends.append(binding.destination)
    return waited, ends


@settings(deadline=None)
@given(st.integers(1, 8 * 365 * 86400))
@example(1)
@example(2**27)
@example(2**LADDER_LEVELS - 1)
def test_any_delay_takes_exactly_its_seconds_and_ends_in_one_queue(seconds: int) -> None:
    exchange, key = delay_route(Names(), timedelta(seconds=seconds), "video.transcode")
    assert ride(TOPOLOGY, exchange, key) == (seconds, ["rmqjobs.video.process"])
    assert job_type_of_key(key) == "video.transcode"
    assert len(key) <= 255


@pytest.mark.parametrize(("delay", "seconds"), [(timedelta(microseconds=1), 1), (timedelta(seconds=1.001), 2)])
def test_a_job_is_never_early(delay: timedelta, seconds: int) -> None:
    assert ride(TOPOLOGY, *delay_route(Names(), delay, "video.clean")) == (seconds, ["rmqjobs.video.clean"])


def test_the_longest_delay_is_over_eight_years() -> None:
    assert timedelta(days=8 * 365) < MAX_DELAY


@pytest.mark.parametrize("key", ["video.transcode", "1.0.video", "0." * 27 + "video", "1." * 28])
def test_a_key_without_all_digits_is_the_job_type_itself(key: str) -> None:
    expected = "" if key == "1." * 28 else key
    assert job_type_of_key(key) == expected
