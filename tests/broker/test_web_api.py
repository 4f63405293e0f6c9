"""The example API: 202 when RabbitMQ has the job, 503 when it has not, and never the other way round."""

import importlib.util
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rmqjobs import Settings
from rmqjobs.testing.broker import free_port
from tests.helpers import depth, until

VIDEO = {"video_id": "42", "source": "/uploads/42.mp4", "folder": "/videos"}


def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "web_api" / "app.py"
    spec = importlib.util.spec_from_file_location("web_api_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def post(body: dict[str, Any]) -> httpx2.Response:
    module = example()
    async with module.lifespan(module.app):
        transport = httpx2.ASGITransport(app=module.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.post("/videos", json=body)


async def test_202_means_rabbitmq_has_the_job(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQJOBS_URL", settings.url)
    monkeypatch.setenv("RMQJOBS_PREFIX", settings.prefix)
    answer = await post(VIDEO)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{answer.json()['job']}"
    assert await until(lambda: depth(settings, "unrouted")) == 1


async def test_the_location_says_where_the_job_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQJOBS_URL", settings.url)
    monkeypatch.setenv("RMQJOBS_PREFIX", settings.prefix)
    module = example()
    async with module.lifespan(module.app):
        transport = httpx2.ASGITransport(app=module.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            location = (await client.post("/videos", json=VIDEO)).headers["location"]

            async def seen() -> bool:
                return bool((await client.get(location)).json()["state"] == "queued")

            assert await until(seen)
            assert (await client.get("/jobs/never-published")).json()["state"] == "unknown"


async def test_503_within_the_deadline_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQJOBS_URL", f"amqp://127.0.0.1:{free_port()}/")
    monkeypatch.setenv("RMQJOBS_PUBLISH_TIMEOUT", "1s")
    answer = await post(VIDEO)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "RJ1406", "5")


async def test_422_for_what_is_no_video_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQJOBS_URL", f"amqp://127.0.0.1:{free_port()}/")
    answer = await post({**VIDEO, "heights": [1081]})
    assert answer.status_code == 422
