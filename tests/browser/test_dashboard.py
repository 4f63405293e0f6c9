"""The dashboard in a real Chromium: what a person sees and does. Skipped without one; `make browser` installs it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from rmqjobs import Settings
from rmqjobs.testing.broker import free_port
from rmqjobs.web.app import application
from rmqjobs.web.site import Site
from tests.helpers import Act, Note, Stage, publishing, until, working

playwright = pytest.importorskip("playwright.async_api")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here: make browser installs it")

PLACES = ("/", "/failures", "/jobs", "/queues", "/schedules", "/workers", "/activity", "/health")
NARROW = 390


class Served:
    """A running dashboard, and a browser's page on it."""

    def __init__(self, root: str, page: Any, browser: Any) -> None:
        self.root, self.page, self.browser = root, page, browser
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    async def go(self, path: str) -> None:
        await self.page.goto(self.root + path)

    async def sees(self, text: str) -> None:
        await playwright.expect(self.page.locator("main")).to_contain_text(text, timeout=30_000)


@pytest.fixture
async def served(settings: Settings, tmp_path: Path) -> AsyncIterator[Served]:
    async with working(Stage(), settings):
        pass  # everything is declared
    mine = settings.model_copy(update={"web_model": str(tmp_path / "model.sqlite")})
    app, port = application(Site(mine), tuple(Stage().registry.handlers.values())), free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    server.capture_signals = _none  # type: ignore[method-assign] # they are pytest's
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    async with playwright.async_playwright() as tools:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = await tools.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = await browser.new_page()
        yield Served(f"http://127.0.0.1:{port}", page, browser)
        await browser.close()
    server.should_exit = True
    await serving


class _none:  # noqa: N801 - stands for a method
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def test_a_page_is_live_and_rests_while_it_is_used(settings: Settings, served: Served) -> None:
    await served.go("/jobs")
    await served.sees("Nothing has happened yet.")
    async with publishing(settings) as jobs, working(Stage(), settings):
        await jobs.publish(Note(text="a"))
        await served.sees("demo.note")
        await served.page.click("#live")  # paused
        await playwright.expect(served.page.locator("#live")).to_have_text("paused")
        await jobs.publish(Act(what="reject"))
        await asyncio.sleep(3)
        assert "demo.act" not in await served.page.locator("main").inner_text()
        await served.page.click("#live")
        await served.sees("demo.act")
    assert served.complaints == []


async def test_an_operator_pauses_cancels_replays_and_drops(settings: Settings, served: Served) -> None:
    page = served.page
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    async with publishing(settings) as jobs, working(Stage(), settings) as worker:
        runs = await jobs.publish(Act(what="wait"))
        for _ in range(3):
            await jobs.publish(Act(what="reject"))
        await served.go("/jobs")
        await served.sees("demo.act")
        await served.go(f"/jobs/{runs}")
        await page.get_by_role("button", name="Cancel this job").click()
        await served.sees("and is cancelled")
        await served.go("/queues")
        row = page.locator("tr", has=page.get_by_role("link", name="demo", exact=True))
        await row.get_by_label("why").fill("the disk is full")
        await row.get_by_role("button", name="Pause").click()
        await served.sees("the disk is full")
        await until(lambda: "demo" in worker.orders.paused)
        await page.get_by_role("button", name="Resume demo", exact=True).click()
        await until(lambda: "demo" not in worker.orders.paused)
        await until(lambda: _counts(served, "3 dead letters, 1 cause"))
        await page.locator("main a[data-row]").first.click()
        await page.get_by_role("button", name="Replay 1 as a test").click()
        await served.sees("Replayed 1.")
        await until(lambda: _counts(served, "3 dead letters"))
        await page.locator("main a[data-row]").first.click()
        await page.get_by_role("button", name="Drop 3 dead letters").click()
        await served.sees("Dropped 3.")
    assert served.complaints == []


async def _counts(served: Served, text: str) -> bool:
    await served.go("/failures")
    return text in await served.page.locator("main").inner_text()


async def test_keys_lead_everywhere_and_the_theme_stays(served: Served) -> None:
    page = served.page
    await served.go("/")
    await page.keyboard.press("g")
    await page.keyboard.press("q")
    await page.wait_for_url("**/queues")
    await page.keyboard.press("?")
    await playwright.expect(page.locator("#keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await page.keyboard.type("state:dead")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs?filter=state%3Adead")
    await page.click("#theme")
    theme = await page.evaluate("document.documentElement.dataset.theme")
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == theme == "dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_place_fits_a_phone(served: Served, scheme: str) -> None:
    context = await served.browser.new_context(color_scheme=scheme, viewport={"width": NARROW, "height": 800})
    page = await context.new_page()
    for place in PLACES:
        await page.goto(served.root + place)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW, f"{place} is {width} wide"
        for label in await page.locator("main button, main input").all():
            assert (await label.inner_text()).strip() or await label.get_attribute("aria-label")
