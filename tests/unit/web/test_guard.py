"""Who may come in, and what every answer says."""

from collections.abc import Mapping

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from rmqjobs.web.guard import Guard, is_loopback
from rmqjobs.web.session import COOKIE, cookie_of

TOKEN = "0123456789abcdef"


async def ok(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("in")


async def ask(method: str, headers: Mapping[str, str], *, token: str | None = None, path: str = "/x") -> httpx2.Response:
    routes = [Route(each, ok, methods=["GET", "POST"]) for each in ("/x", "/api/x", "/livez")]
    transport = httpx2.ASGITransport(app=Guard(Starlette(routes=routes), token))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8088") as client:
        return await client.request(method, path, headers=dict(headers))


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("POST", {}, 200),
        ("GET", {"host": "localhost:8088"}, 200),
        ("GET", {"host": "[::1]:8088"}, 200),
        ("GET", {"host": "evil.example"}, 403),  # a name that points to this machine
        ("GET", {"host": "127.0.0.1.evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:8088"}, 200),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("POST", {"sec-fetch-site": "same-origin"}, 200),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "null"}, 200),  # a browser that tells no referrer
        ("POST", {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8088"}, 403),
        ("GET", {"sec-fetch-site": "cross-site"}, 200),  # the answer cannot be read there
        ("POST", {"content-length": "70000"}, 413),
    ],
)
async def test_without_a_token_only_this_machine_comes_in(method: str, headers: dict[str, str], status: int) -> None:
    answer = await ask(method, headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/api/x", 401),
        ({"authorization": "Bearer wrong"}, "/api/x", 401),
        ({}, "/x", 303),  # a person, who is led to the sign-in page
        ({"cookie": f"{COOKIE}={cookie_of(TOKEN)}"}, "/x", 200),
        ({"cookie": f"{COOKIE}={cookie_of('another')}"}, "/x", 303),
        ({"cookie": "=;\x00"}, "/x", 303),
        ({"authorization": f"Bearer {TOKEN}", "host": "jobs.example"}, "/x", 200),
        ({}, "/livez", 200),
    ],
)
async def test_with_a_token_it_is_needed(headers: dict[str, str], path: str, status: int) -> None:
    assert (await ask("GET", headers, token=TOKEN, path=path)).status_code == status


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "::", "localhost.evil.example", "")))
