"""The dashboard without script: what pages say is what happened, and what their forms do happens."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from rmqjobs import Settings
from rmqjobs.web.app import application
from rmqjobs.web.site import Site
from tests.broker.test_web import serving
from tests.helpers import Act, Note, Stage, depth, publishing, until, working

TOKEN = "a-token-of-sixteen-characters"
PLACES = ("/", "/failures", "/jobs", "/queues", "/schedules", "/workers", "/activity", "/health")


@pytest.fixture
async def client(settings: Settings, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with working(Stage(), settings):
        pass  # everything is declared
    async with serving(settings, tmp_path / "model.sqlite") as one:
        yield one


async def shown(client: httpx2.AsyncClient, path: str) -> str:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "<script>" not in answer.text
    assert not re.search(r"\son[a-z]+=|style=", answer.text), "the policy allows no inline script or style"
    return answer.text


async def do(client: httpx2.AsyncClient, path: str, **fields: str) -> str:
    """Posts a form, and follows to the page that comes back."""
    answer = await client.post(path, data=fields)
    assert answer.status_code == 303, answer.text
    return await shown(client, answer.headers["location"])


async def has(client: httpx2.AsyncClient, path: str, text: str) -> bool:
    return text in (await client.get(path)).text


async def test_every_place_says_what_to_do_while_there_is_nothing(client: httpx2.AsyncClient) -> None:
    pages = {path: await shown(client, path) for path in PLACES}
    assert all("<h1>" in page for page in pages.values())
    assert "Nothing has been given up." in pages["/failures"]
    assert "rmqjobs publish" in pages["/jobs"]
    assert "No scheduler answers." in pages["/schedules"]
    assert "Nobody has done anything." in pages["/activity"]
    assert "There is no such thing." in (await client.get("/jobs/never")).text


async def test_jobs_are_found_read_and_cancelled(settings: Settings, client: httpx2.AsyncClient) -> None:
    async with publishing(settings) as jobs, working(Stage(), settings):
        done = await jobs.publish(Note(text="a", n=41))
        runs = await jobs.publish(Act(what="wait"))
        await until(lambda: has(client, f"/jobs/{done}", "attempt 1 succeeded"))
        await until(lambda: has(client, f"/jobs/{runs}", "Cancel this job"))
        page = await shown(client, f"/jobs/{done}")
        assert "<code>42</code>" in page
        assert "Cancel this job" not in page
        await until(lambda: has(client, "/jobs?filter=state:running", runs))
        assert done not in await shown(client, "/jobs?filter=state:running")
        assert (await client.get("/jobs", params={"filter": done})).headers["location"] == f"/jobs/{done}"
        assert "Did you mean state:?" in (await client.get("/jobs?filter=stat:dead")).text
        page = await do(client, f"/jobs/{runs}/cancel", because="<b>enough</b>")
        assert "It was running, and is cancelled." in page
        await until(lambda: has(client, f"/jobs/{runs}", "because: &lt;b&gt;enough"))
        overview = await shown(client, "/")
        assert "worker, 0 schedulers" in overview


async def test_failures_are_grouped_replayed_and_dropped(settings: Settings, client: httpx2.AsyncClient) -> None:
    stage = Stage()
    async with publishing(settings) as jobs, working(stage, settings):
        for _ in range(3):
            await jobs.publish(Act(what="reject"))
        await until(lambda: _dead(settings, 3))
        groups = await shown(client, "/failures")
        assert "3 dead letters, 1 cause" in groups
        key = re.findall(r'data-row href="(/failures/[^"]+)"', groups)[0]
        group = await shown(client, key)
        assert "Replay 3 dead letters" in group
        assert "rmqjobs.errors.Reject" in group
        assert "Replayed 1." in await do(client, f"{key}/replay?limit=1")
        await until(lambda: len(stage.seen) == 4)
        await until(lambda: _dead(settings, 3))
        letter = re.findall(r'data-row href="(/failures/jobs/[^"]+)"', await shown(client, key))[0]
        page = await shown(client, letter)
        assert "&#34;what&#34;: &#34;reject&#34;" in page
        assert "Dropped 1." in await do(client, f"{letter}/drop", because="one is enough")
        assert "Dropped 2." in await do(client, f"{key}/drop", because="all are")
        assert await depth(settings, "demo.dead") == 0
        assert await depth(settings, "dropped") == 3
        assert "all are" in await shown(client, "/activity")


async def _dead(settings: Settings, count: int) -> bool:
    return await depth(settings, "demo.dead") == count


async def test_queues_and_workers_obey(settings: Settings, client: httpx2.AsyncClient) -> None:
    quick = settings.model_copy(update={"beat_interval": settings.beat_interval / 50})
    async with working(Stage(), quick) as worker:
        assert "demo is paused." in await do(client, "/queues/demo/pause", because="disk")
        assert "api@127.0.0.1: disk" in await shown(client, "/queues")
        await until(lambda: has(client, "/", "demo is paused"))
        assert "demo is resumed." in await do(client, "/queues/demo/resume")
        await until(lambda: has(client, "/workers", worker.name))
        assert "takes no more jobs" in await do(client, f"/workers/{worker.name}/drain")
        await until(lambda: has(client, f"/workers/{worker.name}", "draining"))
        await do(client, f"/workers/{worker.name}/stop")
        assert worker.orders.told_to_stop.is_set()


async def test_with_a_token_a_browser_signs_in(settings: Settings, tmp_path: Path) -> None:
    mine = settings.model_copy(update={"web_model": str(tmp_path / "model.sqlite"), "web_token": TOKEN})
    app = application(Site(mine))
    transport = httpx2.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://jobs.example") as one:
        assert (await one.get("/jobs")).headers["location"] == "/sign-in"
        assert (await one.get("/api/jobs")).status_code == 401
        assert (await one.post("/queues/demo/pause", data={})).status_code == 401
        wrong = await one.post("/sign-in", data={"token": "wrong"})
        assert (wrong.status_code, "That is not the token." in wrong.text) == (401, True)
        right = await one.post("/sign-in", data={"token": TOKEN})
        assert right.status_code == 303
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in cookie
        page = await one.get("/jobs")
        assert page.status_code == 200
        assert TOKEN not in page.text
