"""The HTTP API: what it says is what happened, and what it is told happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rmqjobs import Settings
from rmqjobs.web.app import application
from rmqjobs.web.site import Site
from tests.helpers import Act, Note, Stage, publishing, until, working


@asynccontextmanager
async def serving(settings: Settings, path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    mine = settings.model_copy(update={"web_model": str(path)})
    app = application(Site(mine), tuple(Stage().registry.handlers.values()))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.fixture
async def client(settings: Settings, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with working(Stage(), settings):
        pass  # everything is declared
    async with serving(settings, tmp_path / "model.sqlite") as one:
        yield one


async def got(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def state(client: httpx2.AsyncClient, job_id: str) -> str:
    answer = await client.get(f"/api/jobs/{job_id}")
    return str(answer.json().get("state"))


async def is_in(client: httpx2.AsyncClient, job_id: str, wanted: str) -> bool:
    return await state(client, job_id) == wanted


async def test_jobs_are_listed_shown_and_cancelled(settings: Settings, client: httpx2.AsyncClient) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        done = await jobs.publish(Note(text="a", n=41))
        dead = await jobs.publish(Act(what="reject"))
        runs = await jobs.publish(Act(what="wait"))
        await until(lambda: is_in(client, done, "done"))
        await until(lambda: is_in(client, dead, "dead"))
        await until(lambda: is_in(client, runs, "running"))
        listed = await got(client, "/api/jobs", filter="type:demo.act")
        assert [job["id"] for job in listed["jobs"]] == [runs, dead]
        assert (listed["count"], listed["is_more"], listed["after"]) == (2, False, None)
        first = await got(client, "/api/jobs", limit=1)
        second = await got(client, "/api/jobs", limit=1, after=first["after"])
        assert [first["jobs"][0]["id"], second["jobs"][0]["id"]] == [runs, dead]
        one = await got(client, f"/api/jobs/{done[:30]}")
        assert one["records"][-1]["data"]["result"] == 42
        assert "attempt 1 succeeded" in one["story"][-1]["text"]
        counts = await got(client, "/api/counts")
        assert (counts["states"]["done"], counts["types"]["demo.act"]) == (1, {"dead": 1, "running": 1})
        assert {rate["kind"] for rate in await got(client, "/api/rates")} >= {"published", "succeeded", "dead"}

        assert (await client.post(f"/api/jobs/{dead}/cancel", json={})).status_code == 409
        answer = await client.post(f"/api/jobs/{runs}/cancel", json={"because": "enough"})
        assert (answer.status_code, answer.json()["was"]) == (202, "running")
        await until(lambda: is_in(client, runs, "cancelled"))
        story = (await got(client, f"/api/jobs/{runs}"))["story"]
        await until(lambda: is_in(client, runs, "cancelled"))
        assert any("cancelled by api@127.0.0.1, because: enough" in line["text"] for line in story)


async def test_queues_are_paused_moved_and_purged(settings: Settings, client: httpx2.AsyncClient) -> None:
    stage = Stage()
    paused = await client.post("/api/queues/demo/pause", json={"because": "disk", "seconds": 3600})
    assert paused.json()["paused"]["because"] == "disk"
    async with publishing(settings) as jobs, working(stage, settings):
        for number in range(5):
            await jobs.publish(Note(text="a", n=number))
        await asyncio.sleep(0.3)
        assert not stage.seen
        assert next(queue for queue in await got(client, "/api/queues") if queue["queue"] == "demo")["ready"] == 5
        assert (await client.post("/api/queues/demo/move", json={"to": "demo.thread", "limit": 2})).json()["done"] == 2
        assert (await client.post("/api/queues/demo/purge", json={"confirm": "x"})).status_code == 422
        purged = await client.post("/api/queues/demo/purge", json={"confirm": "demo", "limit": 1})
        assert purged.json()["done"] == 1
        await client.post("/api/queues/demo/resume", json={})
        await until(lambda: len(stage.seen) == 4)
    acted = await until(lambda: _acted(client, 4))
    assert acted == ["resume", "purge", "move", "pause"]
    assert (await client.get("/api/queues/nothing")).status_code == 404


async def _acted(client: httpx2.AsyncClient, count: int) -> list[str] | None:
    actions = [each["action"] for each in await got(client, "/api/actions")]
    return actions if len(actions) == count else None


async def test_workers_are_seen_drained_and_lost(settings: Settings, client: httpx2.AsyncClient) -> None:
    quick = settings.model_copy(update={"beat_interval": settings.beat_interval / 50})
    async with working(Stage(), quick) as worker:

        async def states() -> list[str]:
            return [each["state"] for each in await got(client, "/api/workers") if each["worker"] == worker.name]

        async def is_in_state(wanted: str) -> bool:
            return await states() == [wanted]

        await until(lambda: is_in_state("ready"))
        assert (await got(client, f"/api/workers/{worker.name}/stacks"))["jobs"] == []
        assert (await client.post(f"/api/workers/{worker.name}/drain", json={})).json()["state"] == "draining"
        await until(lambda: is_in_state("draining"))
    await until(lambda: is_in_state("stopped"))
    assert (await client.get("/api/workers/nobody/stacks")).status_code == 404


async def test_what_cannot_be_is_explained(client: httpx2.AsyncClient) -> None:
    wrong = await client.get("/api/jobs", params={"filter": "stat:dead"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "RJ1800")
    assert (await client.get("/api/jobs", params={"after": "x"})).status_code == 400
    assert (await client.get("/api/jobs/never-published")).status_code == 404
    assert (await client.get("/api/schedules")).status_code == 503

    async def is_ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await until(is_ready)
    described = await got(client, "/api/openapi.json")
    assert {"/api/jobs", "/api/queues", "/api/workers", "/api/schedules", "/api/events"} <= set(described["paths"])


async def test_two_servers_on_one_machine_have_files_of_their_own(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "model.sqlite"
    async with publishing(settings) as jobs, working(Stage(), settings):
        done = await jobs.publish(Note(text="a"))
        async with serving(settings, path) as one, serving(settings, path) as other:
            await until(lambda: is_in(one, done, "done"))
            await until(lambda: is_in(other, done, "done"))
            lists = [json.dumps((await got(client, "/api/jobs"))["jobs"]) for client in (one, other)]
            assert lists[0] == lists[1]
    assert (path.exists(), path.with_suffix(".1.sqlite").exists()) == (True, True)
