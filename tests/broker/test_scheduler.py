"""The scheduler against a real broker: being active, standing by, its state, its mailbox, its alarms."""

import asyncio
import contextlib
import json
import socketserver
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from pika.exceptions import StreamLostError

from rmqjobs import Job, Payload, Plugin, Reject, RetryPolicy, Settings
from rmqjobs.amqp.asking import ask
from rmqjobs.amqp.holding import Holding
from rmqjobs.amqp.reviewing import desk
from rmqjobs.errors import NoScheduler
from rmqjobs.journal import follow
from rmqjobs.plugins import Registry, registry_of
from rmqjobs.probes import Probes
from rmqjobs.scheduler import service as scheduler_service
from rmqjobs.scheduler.catalogue import Catalogue, read_file
from rmqjobs.scheduler.service import Scheduler
from rmqjobs.topology import Names
from rmqjobs.wire import scheduling as wire
from rmqjobs.worker import Worker
from tests.helpers import probe, publish_raw, raw_channel, until


class Tick(Payload, type="demo.tick"):
    what: str = "ok"


class Alone(Payload, type="demo.alone"):
    seconds: float = 0.0


class Clock:
    """The time of day, moved by hand."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


class Stage:
    """A plugin whose ticks write down what they were."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.running = self.most = 0
        self.spans: list[tuple[float, float]] = []
        self.plugin = Plugin("demo", retry=RetryPolicy(max_attempts=1))

        @self.plugin.handler
        async def tick(payload: Tick, job: Job) -> None:
            self.jobs.append(job)
            if payload.what == "reject":
                raise Reject("never")

        @self.plugin.handler(singleton=True)
        async def alone(payload: Alone, job: Job) -> None:
            self.jobs.append(job)
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(payload.seconds)
            self.running -= 1

    @property
    def registry(self) -> Registry:
        return registry_of(self.plugin)

    @property
    def planned(self) -> list[datetime]:
        return [job.scheduled_for for job in self.jobs if job.scheduled_for]


@asynccontextmanager
async def scheduling(
    stage: Stage, settings: Settings, *, file: Path | None = None, now: Callable[[], datetime] | None = None
) -> AsyncIterator[Scheduler]:
    def load() -> Catalogue:
        return Catalogue(stage.registry, read_file(file) if file else None)

    scheduler = Scheduler(load, settings, file=file, **({"now": now} if now else {}))
    stop = asyncio.Event()
    running = asyncio.create_task(scheduler.run(stop))
    await until(lambda: scheduler.is_ready or running.done())
    try:
        yield scheduler
    finally:
        stop.set()
        await running


@asynccontextmanager
async def working(stage: Stage, settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(stage.registry, settings)
    await worker.start()
    yield worker
    await worker.drain(timedelta(seconds=5))


async def asked(settings: Settings, verb: str, **arguments: Any) -> dict[str, Any]:
    body = wire.command(verb, arguments)
    queue = Names(settings.prefix).scheduler
    answer = await ask(settings, queue, wire.COMMAND, body, by="test", timeout=timedelta(seconds=5))
    return wire.read_answer(answer)


async def happened(settings: Settings, kind: str) -> list[dict[str, Any]]:
    return [dict(event.data) async for event in follow(settings, start="first", stop_at_end=True) if event.kind.value == kind]


def cut(scheduler: Scheduler) -> None:
    """Ends its connection as a network does, without a word."""
    assert scheduler._holding is not None
    scheduler._holding.connection.raw._terminate_stream(StreamLostError("cut"))


async def test_ticks_carry_their_planned_time_and_period(settings: Settings) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    async with working(stage, settings), scheduling(stage, settings):
        await until(lambda: len(stage.jobs) >= 3)
    first, second = stage.jobs[:2]
    assert first.scheduled_for
    assert second.scheduled_for == first.scheduled_for + timedelta(seconds=1)
    assert (second.schedule, second.period_start) == ("demo.beat", first.scheduled_for)
    assert second.id == f"demo.beat@{second.scheduled_for:%Y-%m-%dT%H:%M:%S}Z"
    assert second.published_at
    assert second.published_at - second.scheduled_for < timedelta(seconds=1)


async def test_of_several_one_is_active_and_another_takes_over_at_once(settings: Settings) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    async with working(stage, settings), scheduling(stage, settings) as one, scheduling(stage, settings) as two:
        await until(lambda: one.is_active != two.is_active)
        await until(lambda: stage.jobs)
        await asyncio.sleep(0.3)  # cut before its token is written, a tick is published again, under the same id
        active, other = (one, two) if one.is_active else (two, one)
        cut(active)
        await until(lambda: other.is_active, timeout=10)  # a heartbeat is 20 seconds
        assert not active.is_active
        await until(lambda: len(stage.jobs) >= 3)
        await until(lambda: active.is_ready)
    planned = stage.planned
    assert planned == [planned[0] + timedelta(seconds=n) for n in range(len(planned))]
    found = await happened(settings, "activated")
    assert len(found) >= 2
    assert found[1]["before"] == active.name


async def test_a_standby_that_is_passed_over_connects_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen once on three nodes of 3.10 whose leader was killed: three schedulers waited, and none was made active."""
    monkeypatch.setattr(scheduler_service, "LOOK_EVERY", 0.05)
    stage = Stage()
    stage.plugin.schedule("rare", cron="0 0 1 1 *", payload=Tick())
    async with scheduling(stage, settings) as one:
        await until(lambda: one.is_active)
        async with scheduling(stage, settings) as two:
            await until(lambda: two._holding is not None)
            before = two._holding
            await asyncio.sleep(1.5)
            assert two._holding is before, "a queue with an active consumer passes nobody over"
            monkeypatch.setattr(Holding, "is_passed_over", passed_over)
            await until(lambda: two._holding is not None and two._holding is not before)
    assert "RabbitMQ makes nobody the active consumer" in str([vars(record).get("because") for record in caplog.records])


async def passed_over(_holding: Holding, _queue: str) -> bool:
    return True


async def test_what_was_missed_is_decided_from_the_token(settings: Settings) -> None:
    """Down for five minutes: one tick makes up for four, none is forgotten, and it is told."""
    stage, clock = Stage(), Clock()
    stage.plugin.schedule("minutely", cron="* * * * *", payload=Tick(), misfire_grace=timedelta(seconds=1))
    async with scheduling(stage, settings, now=clock) as scheduler:
        await until(lambda: scheduler.is_active)
    clock.shift = timedelta(minutes=5)
    async with working(stage, settings), scheduling(stage, settings, now=clock):
        await until(lambda: stage.jobs)
    (missed,) = await happened(settings, "misfired")
    assert missed["missed"] in (4, 5)
    assert missed["policy"] == "once"
    assert stage.jobs[0].scheduled_for
    assert stage.jobs[0].period_start
    assert stage.jobs[0].scheduled_for - stage.jobs[0].period_start >= timedelta(minutes=4)


async def test_a_clock_that_jumps_is_reported_and_ticks_nothing_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmqjobs.scheduler.service.LOOK_EVERY", 0.2)
    stage, clock = Stage(), Clock()
    stage.plugin.schedule(
        "beat", every=timedelta(seconds=1), payload=Tick(), misfire="skip", misfire_grace=timedelta(seconds=1)
    )
    async with working(stage, settings), scheduling(stage, settings, now=clock) as scheduler:
        await until(lambda: stage.jobs)
        clock.shift = timedelta(seconds=-4)
        await asyncio.sleep(1)
        before = len(stage.jobs)
        await asyncio.sleep(1)
        assert len(stage.jobs) == before, "it waits until the clock is where it was"
        await until(lambda: len(stage.jobs) > before + 1)
        clock.shift = timedelta(minutes=10)
        await until(lambda: stage.planned[-1] > datetime.now(UTC) + timedelta(minutes=9))
        assert scheduler.is_active
    assert len(set(stage.planned)) == len(stage.planned)
    directions = [found.get("direction") for found in await happened(settings, "clock jumped")]
    assert directions == ["backwards", "forwards"]
    assert (await happened(settings, "misfired"))[0]["missed"] >= 590


async def test_a_lost_token_is_replaced_by_what_is_known(settings: Settings) -> None:
    """Somebody purges the queue, or deletes it: the state in memory goes on."""
    stage = Stage()
    stage.plugin.schedule("rare", cron="0 0 1 1 *", payload=Tick())
    name = Names(settings.prefix).scheduler
    async with scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        await asked(settings, "pause", name="demo.rare")
        async with raw_channel(settings) as channel:
            await channel.queue_delete(name)
        with pytest.raises((NoScheduler, AssertionError)):
            await asyncio.wait_for(asked(settings, "list"), 6)
        if not scheduler.is_active or scheduler._holding is None:  # 4.x says so at once
            await until(lambda: scheduler.is_active)
        else:
            cut(scheduler)
            await until(lambda: not scheduler.is_active)
        await until(lambda: scheduler.is_active)
        found = (await asked(settings, "list"))["ok"]["schedules"]
    assert found[0]["state"] == "paused"


async def test_commands_change_the_state_for_good(settings: Settings) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    async with scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        assert (await asked(settings, "pause", name="demo.beat"))["ok"]["changed"] is True
        assert (await asked(settings, "pause", name="demo.beat"))["ok"]["changed"] is False
        fields = {"name": "added", "type": "demo.tick", "every": "1h", "payload": {"what": "x"}}
        assert (await asked(settings, "add", **fields))["ok"]["origin"] == "runtime"
        assert "of this name already" in (await asked(settings, "add", **fields))["error"]
        assert "no plugin here handles" in (await asked(settings, "add", **{**fields, "name": "b", "type": "no.such"}))["error"]
        assert "payload" in (await asked(settings, "add", **{**fields, "name": "b", "payload": {"what": 3}}))["error"]
        assert "never tick" in (await asked(settings, "add", name="b", type="demo.tick", at="2020-01-01T00:00:00"))["error"]
        assert "would come back" in (await asked(settings, "remove", name="demo.beat"))["error"]
        assert "Did you mean 'demo.beat'" in (await asked(settings, "show", name="demo.bea"))["error"]
        assert "does not know 'explode'" in (await asked(settings, "explode"))["error"]
    async with working(stage, settings), scheduling(stage, settings):
        found = {each["name"]: each for each in (await asked(settings, "list"))["ok"]["schedules"]}
        assert {name: each["state"] for name, each in found.items()} == {"demo.beat": "paused", "added": "on"}
        job_id = (await asked(settings, "run", name="added"))["ok"]["job_id"]
        await until(lambda: any(job.id == job_id for job in stage.jobs))
        await asked(settings, "remove", name="added")
        await asked(settings, "resume", name="demo.beat")
        await until(lambda: len(stage.jobs) > 2)
        shown = (await asked(settings, "show", name="demo.beat"))["ok"]
        assert (shown["state"], shown["outcome"], len(shown["upcoming"])) == ("on", "done", 5)
    kinds = [event.kind.value async for event in follow(settings, start="first", stop_at_end=True)]
    assert [kind for kind in kinds if kind in ("paused", "resumed", "added", "removed")] == [
        "paused",
        "added",
        "removed",
        "resumed",
    ]


async def test_no_scheduler_is_said_and_nothing_happens_later(settings: Settings) -> None:
    stage = Stage()
    with pytest.raises(NoScheduler, match="Start one with: rmqjobs scheduler"):
        await asked(settings, "list")
    async with scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
    with pytest.raises(NoScheduler, match="no scheduler runs"):
        await asked(settings, "list")


async def test_state_of_unknown_schedules_is_carried_along(settings: Settings) -> None:
    """A rolling deploy: the scheduler that has the other plugin will find its state."""
    one, two = Stage(), Stage()
    one.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    async with scheduling(one, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        await asked(settings, "pause", name="demo.beat")
    async with scheduling(two, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        assert (await asked(settings, "list"))["ok"]["others"] == ["demo.beat"]
    async with scheduling(one, settings):
        (found,) = (await asked(settings, "list"))["ok"]["schedules"]
        assert found["state"] == "paused"


async def test_a_changed_file_is_taken_over_and_a_broken_one_is_not(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmqjobs.scheduler.service.LOOK_EVERY", 0.1)
    stage, file = Stage(), tmp_path / "rmqjobs.toml"
    file.write_text('[schedules.a]\ntype = "demo.tick"\nevery = "1h"\n')

    async def names() -> list[str]:
        return [each["name"] for each in (await asked(settings, "list"))["ok"]["schedules"]]

    async with working(stage, settings), scheduling(stage, settings, file=file) as scheduler:
        await until(lambda: scheduler.is_active)
        await asked(settings, "add", name="r", type="demo.tick", every="1h")
        file.write_text('[schedules.b]\ntype = "demo.tick"\nevery = "1s"\n')
        await until(lambda: stage.jobs)
        assert await names() == ["b", "r"]
        file.write_text('[schedules.b]\ntype = "demo.tick"\nevery = "never"\n')
        await asyncio.sleep(0.5)
        before = len(stage.jobs)
        await until(lambda: len(stage.jobs) > before)
        file.write_text('[schedules.r]\ntype = "demo.tick"\nevery = "1h"\n')
        await asyncio.sleep(0.5)
        assert await names() == ["b", "r"], "a clash with a runtime schedule is refused"


@pytest.mark.parametrize(("overlap", "periods", "runs"), [("skip", 6.5, 2), ("queue", 1.5, 3)])
async def test_a_run_of_many_periods_is_never_overlapped(settings: Settings, overlap: Any, periods: float, runs: int) -> None:
    """Two workers, one-second ticks, runs that take many of them."""
    stage, other = Stage(), Stage()
    stage.plugin.schedule("slow", every=timedelta(seconds=1), payload=Alone(seconds=periods), overlap=overlap)
    async with working(stage, settings), working(other, settings), scheduling(stage, settings) as scheduler:
        await until(lambda: len(stage.jobs) + len(other.jobs) == runs, timeout=40)
        await asked(settings, "pause", name="demo.slow")
        assert scheduler.is_active
        started = sorted(job.scheduled_for for job in stage.jobs + other.jobs if job.scheduled_for)
        gaps = [(after - before).total_seconds() for before, after in pairwise(started)]
        assert max(stage.most, other.most) == 1
        assert min(stage.most, other.most) <= 1
        assert all(gap >= 6 for gap in gaps) if overlap == "skip" else gaps == [1.0, 1.0]
        async with raw_channel(settings) as channel:  # what waits would be run at the end
            await (await channel.get_queue(f"{settings.prefix}.demo.alone", ensure=False)).purge()
    if overlap == "skip":
        assert len(await happened(settings, "skipped")) >= 3


class Service:
    """A healthchecks-style service on loopback."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                failing = not service.calls
                service.calls.append((self.path, body))
                self.send_response(503 if failing else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/uuid"


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


async def test_pings_say_start_success_and_failure(settings: Settings, service: Service) -> None:
    stage = Stage()
    yearly = "0 0 1 1 *"
    stage.plugin.schedule("good", cron=yearly, payload=Tick(), ping=service.url)
    stage.plugin.schedule("bad", cron=yearly, payload=Tick(what="reject"), ping=f"{service.url}?tag=1")
    async with working(stage, settings), scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        await asked(settings, "run", name="demo.good")
        await until(lambda: ("/uuid", "") in service.calls)
        await asked(settings, "run", name="demo.bad")
        await until(lambda: ("/uuid/fail?tag=1", "rejected") in service.calls)
    paths = [path for path, _ in service.calls]
    assert paths == ["/uuid/start", "/uuid/start", "/uuid", "/uuid/start?tag=1", "/uuid/fail?tag=1"], (
        "the first was refused with 503"
    )


async def test_no_success_in_time_is_an_alarm_until_there_is_one(settings: Settings) -> None:
    """Nobody works: the job never starts. Then somebody does."""
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=2), payload=Tick(), expected_by=timedelta(seconds=1))
    async with working(stage, settings):
        pass  # so that its queue is there
    async with scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.chronicle.overdue)
        shown = (await asked(settings, "show", name="demo.beat"))["ok"]
        assert shown["state"] == "overdue"
        async with working(stage, settings):
            await until(lambda: not scheduler.chronicle.overdue)
    (alarm,) = (await happened(settings, "overdue"))[:1]
    assert (alarm["schedule"], alarm["because"]) == ("demo.beat", "no success within 1s")
    assert await happened(settings, "recovered")


async def test_a_job_that_died_is_an_alarm_at_once(settings: Settings) -> None:
    stage = Stage()
    schedule_of_a_day = {"expected_by": timedelta(days=1), "payload": Tick(what="reject")}
    stage.plugin.schedule("dying", every=timedelta(seconds=1), **schedule_of_a_day)  # type: ignore[arg-type]
    async with working(stage, settings), scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.chronicle.overdue)
    assert (await happened(settings, "overdue"))[0]["because"] == "its job was given up: rejected"


async def test_garbage_in_the_mailbox_stops_nobody(settings: Settings) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    name = Names(settings.prefix).scheduler
    garbage: list[tuple[bytes, dict[str, Any]]] = [
        (b"", {}),
        (b"\xff", {"type": wire.TOKEN}),
        (b"{}", {"type": wire.COMMAND}),
        (b"[1]", {"type": wire.TOKEN}),
        (b'{"version": "x"}', {"type": wire.TOKEN}),
        (b"null", {"type": "x" * 200, "headers": {"rmqjobs-status": "done"}, "correlation_id": "nonsense"}),
        (b"[" * 200_000, {"type": wire.TOKEN}),
        (b"[" * 200_000, {"headers": {"rmqjobs-status": "dead"}, "correlation_id": "demo.beat@2026-01-01T00:00:00Z"}),
        (b"{}", {"headers": {"rmqjobs-status": "done"}, "correlation_id": "demo.beat@9999-12-31T23:59:59-14:00"}),
        (b"{}", {"headers": {"rmqjobs-status": "done"}, "correlation_id": "demo.beat@2026-01-01T00:00:00Z"}),
        (b"{}", {"headers": {"rmqjobs-status": "dead"}, "correlation_id": "no.such@2026-01-01T00:00:00Z"}),
    ]
    async with working(stage, settings), scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        async with raw_channel(settings) as channel:
            for body, properties in garbage:
                await channel.default_exchange.publish(aio_pika.Message(body, **properties), routing_key=name)
        before = len(stage.jobs)
        await until(lambda: len(stage.jobs) > before + 1)
        assert scheduler.is_active
        assert (await asked(settings, "list"))["ok"]


async def test_a_token_of_a_later_version_is_left_to_others(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    async with scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
    name = Names(settings.prefix).scheduler
    later = {"format": 2, "version": 9000, "shape": ["unknown"]}
    async with raw_channel(settings) as channel:
        message = aio_pika.Message(json.dumps(later).encode(), type=wire.TOKEN)
        await channel.default_exchange.publish(message, routing_key=name)
    stop = asyncio.Event()
    scheduler = Scheduler(lambda: Catalogue(stage.registry), settings)
    running = asyncio.create_task(scheduler.run(stop))
    await until(lambda: any("Update this scheduler" in getattr(record, "because", "") for record in caplog.records))
    assert not scheduler.is_active
    stop.set()
    await running
    async with desk(settings) as operator, operator.look(name) as look:
        bodies = [each.body async for each in look.messages()]
    assert any(b'"version": 9000' in body for body in bodies), "it is still there, for a later version"
    assert len(bodies) <= 3, "offers do not pile up"
    assert stage.jobs == []


async def test_a_takeover_leaves_one_token_and_loses_no_command(settings: Settings) -> None:
    stage, name = Stage(), Names(settings.prefix).scheduler
    stage.plugin.schedule("rare", cron="0 0 1 1 *", payload=Tick())
    async with scheduling(stage, settings) as one:
        await until(lambda: one.is_active)
        await asked(settings, "add", name="gone", type="demo.tick", every="1h")
        async with scheduling(stage, settings) as two:
            commands = [asyncio.create_task(asked(settings, "list")) for _ in range(20)]
            await asyncio.sleep(0.05)
            cut(one)
            commands += [asyncio.create_task(asked(settings, "list")) for _ in range(20)]
            answers = await asyncio.gather(*commands, return_exceptions=True)
            await until(lambda: two.is_active)
        await until(lambda: one.is_active)
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
        await asked(settings, "remove", name="gone")
        await asyncio.sleep(1.5)
    async with scheduling(stage, settings) as again:
        await until(lambda: again.is_active)
        assert [each["name"] for each in (await asked(settings, "list"))["ok"]["schedules"]] == ["demo.rare"]
    async with desk(settings) as operator:
        assert await operator.depth(name) == 1, "the token, and nothing that was left over"


async def test_the_state_of_a_former_active_one_survives_the_loss_of_the_queue(settings: Settings) -> None:
    stage, name = Stage(), Names(settings.prefix).scheduler
    stage.plugin.schedule("paused", every=timedelta(seconds=1), payload=Tick())
    async with working(stage, settings), scheduling(stage, settings) as one, scheduling(stage, settings) as two:
        await until(lambda: one.is_active != two.is_active)
        await asked(settings, "pause", name="demo.paused")
        await asked(settings, "add", name="rt", type="demo.tick", every="1s")
        await until(lambda: any(job.schedule == "rt" for job in stage.jobs))
        async with raw_channel(settings) as channel:
            await channel.queue_delete(name)
        for each in (one, two):  # 3.10 tells nobody
            if each._holding is not None and not each._holding.lost.done():
                cut(each)
        before = sum(job.schedule == "rt" for job in stage.jobs)
        await until(lambda: sum(job.schedule == "rt" for job in stage.jobs) >= before + 2)
        states = {each["name"]: each["state"] for each in (await asked(settings, "list"))["ok"]["schedules"]}
        assert states == {"demo.paused": "paused", "rt": "on"}


async def test_what_is_paused_within_its_jitter_is_told(settings: Settings) -> None:
    stage, clock = Stage(), Clock()
    stage.plugin.schedule("late", every=timedelta(hours=1), payload=Tick(), jitter=timedelta(minutes=59))
    clock.shift = timedelta(hours=1, seconds=1) - timedelta(seconds=datetime.now(UTC).timestamp() % 3600)
    async with scheduling(stage, settings, now=clock) as scheduler:
        await until(lambda: scheduler.is_active)
        clock.shift += timedelta(hours=1)
        await asked(settings, "pause", name="demo.late")
        await asked(settings, "resume", name="demo.late")
        assert scheduler._active is not None
        assert scheduler._active.token.entries["demo.late"].paused is None, "as the schedule says"
    assert (await happened(settings, "misfired"))[0]["dropped"] == 1


class Odd(socketserver.ThreadingTCPServer):
    """A service that answers in one way or another, and remembers what it was asked."""

    daemon_threads, block_on_close = True, False

    def __init__(self, answer: bytes, *, pause: float = 0.0) -> None:
        self.calls: list[bytes] = []
        odd = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                odd.calls.append(self.request.recv(1000))
                with contextlib.suppress(OSError):
                    for byte in answer:
                        self.request.sendall(bytes([byte]))
                        time.sleep(pause)

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


async def test_a_service_that_hangs_or_talks_nonsense_holds_up_nothing(settings: Settings) -> None:
    """Pings to both, while another schedule's get through, and the end is not delayed."""
    hanging, nonsense = Odd(b"HTTP/1.1 200 OK", pause=2), Odd(b"SSH-2.0-OpenSSH\r\n")
    fine = Odd(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    stage, yearly = Stage(), "0 0 1 1 *"
    for name, server, host in (
        ("hanging", hanging, "localhost"),
        ("nonsense", nonsense, "127.0.0.1"),
        ("fine", fine, "127.0.0.1"),
    ):
        for number in range(4):
            ping = f"http://{host}:{server.server_address[1]}/secret"
            stage.plugin.schedule(f"{name}-{number}", cron=yearly, payload=Tick(), ping=ping)
    async with working(stage, settings), scheduling(stage, settings) as scheduler:
        await until(lambda: scheduler.is_active)
        for schedule in stage.plugin.rmqjobs_schedules():
            await asked(settings, "run", name=schedule.name)
        await until(lambda: sum(call.startswith(b"POST /secret ") for call in fine.calls) == 4, timeout=30)
        cut(scheduler)
        await until(lambda: not scheduler.is_active)
        await until(lambda: scheduler.is_active)
    assert nonsense.calls
    for server in (hanging, nonsense, fine):
        server.shutdown()
        server.server_close()


async def test_a_client_that_reads_slowly_holds_up_no_probe(settings: Settings) -> None:
    open_port = settings.model_copy(update={"metrics_port": 0, "metrics_host": "127.0.0.1"})
    async with Probes(open_port, role="test", collectors=(), trouble=str) as probes:
        readers = [await asyncio.open_connection("127.0.0.1", probes.port) for _ in range(5)]
        for _, writer in readers:
            writer.write(b"GET")
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{probes.port}/livez", timeout=2)
        assert answer.status == 200
        answer.close()
    for _, writer in readers:
        writer.close()
        await writer.wait_closed()


async def test_a_full_queue_holds_up_only_its_own_schedule(settings: Settings) -> None:
    """The broker refuses a tick: it is tried again, the others go on, and the cursor waits."""
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    stage.plugin.schedule("alone", every=timedelta(seconds=1), payload=Alone(), overlap="queue", misfire="all")
    async with working(stage, settings):
        pass
    async with raw_channel(settings) as channel:
        full = f"{settings.prefix}.full"
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue(full, durable=True, arguments=arguments)
        await queue.bind(f"{settings.prefix}.jobs", "demo.alone")
        await publish_raw(settings, b"{}", key="demo.alone")
        async with scheduling(stage, settings) as scheduler, working(stage, settings):
            await until(lambda: sum(job.schedule == "demo.beat" for job in stage.jobs) >= 3)
            assert scheduler._active is not None
            held_up = scheduler._active.token.entries["demo.alone"]
            assert held_up.ticked is None
            await queue.delete(if_empty=False, if_unused=False)
            await until(lambda: held_up.ticked)


async def test_probes_answer(settings: Settings) -> None:
    stage = Stage()
    stage.plugin.schedule("beat", every=timedelta(seconds=1), payload=Tick())
    open_port = settings.model_copy(update={"metrics_port": 0, "metrics_host": "127.0.0.1"})

    async with working(stage, settings) as worker, scheduling(stage, settings) as scheduler:
        of_scheduler = Probes(open_port, role="scheduler", collectors=(scheduler.chronicle,), trouble=lambda: scheduler.trouble)
        of_worker = Probes(open_port, role="worker", collectors=(worker.figures,), trouble=lambda: worker.trouble)
        async with of_scheduler, of_worker:
            await until(lambda: len(stage.jobs) >= 2)
            assert await asyncio.to_thread(probe, of_scheduler.port, "/livez") == (200, "ok\n")
            assert await asyncio.to_thread(probe, of_scheduler.port, "/readyz") == (200, "ok\n")
            assert (await asyncio.to_thread(probe, of_scheduler.port, "/"))[0] == 404
            _, text = await asyncio.to_thread(probe, of_scheduler.port, "/metrics")
            assert "rmqjobs_scheduler_active 1.0" in text
            assert 'rmqjobs_schedule_ticks_total{schedule="demo.beat"}' in text
            assert 'rmqjobs_schedule_lateness_seconds_bucket{le="+Inf"}' in text
            await until(lambda: worker.figures._tallies)
            _, text = await asyncio.to_thread(probe, of_worker.port, "/metrics")
            assert 'rmqjobs_jobs_processed_total{queue="demo",type="demo.tick",verdict="succeeded"}' in text
            assert "rmqjobs_scheduler_missing_seconds 0.0" in text
            cut(scheduler)
            await until(lambda: not scheduler.is_ready)
            assert (await asyncio.to_thread(probe, of_scheduler.port, "/livez"))[0] == 200


async def test_workers_warn_when_nobody_ticks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmqjobs.worker.lookout.LOOK_EVERY", 0.1)
    stage = Stage()
    impatient = settings.model_copy(update={"scheduler_missing_after": timedelta(milliseconds=300)})
    async with working(stage, impatient) as worker:
        await asyncio.sleep(0.8)
        assert worker._lookout.missing_seconds == 0, "nothing was ever scheduled"
        async with scheduling(stage, settings) as scheduler:
            await until(lambda: scheduler.is_active)
            await asyncio.sleep(0.8)
            assert worker._lookout.missing_seconds == 0
        await until(lambda: worker._lookout._warned)
        assert worker._lookout.missing_seconds >= 0.3
        async with scheduling(stage, settings):
            await until(lambda: not worker._lookout._warned)
    assert len(await happened(settings, "unscheduled")) == 1
