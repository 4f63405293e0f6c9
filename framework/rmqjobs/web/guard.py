"""Who may come in: on loopback only this machine's own programs, elsewhere whoever has the token.

A browser on this machine runs pages of strangers. So a request must name this machine as the host (or a stranger's name that
points here would do), and what changes something must not come from another site.
"""

from __future__ import annotations

import contextlib
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmqjobs.web.session import COOKIE, cookie_of, is_right

MOST_BYTES = 65_536  # of a request's body
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/livez", "/readyz", "/sign-in", "/static/style.css", "/static/icon.svg")
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'"
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"{_POLICY}; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware.

    Args:
        app: What is guarded.
        token: What a request has to bring as `Authorization: Bearer TOKEN`; None where only this machine can ask.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request in, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._token is None and not is_loopback(host):
            return _refused(403, f"{host!r} is not this machine. Ask for 127.0.0.1, or set web_token")
        if self._token is not None and path not in _OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not is_right(given, self._token) and not is_right(_cookie(headers), cookie_of(self._token)):
                return _to_sign_in(method, path)
        if method not in _SAFE and not _is_same_site(headers):
            return _refused(403, "this comes from another site")
        if int(headers.get("content-length") or 0) > MOST_BYTES:
            return _refused(413, f"a request has {MOST_BYTES:,} bytes at most")
        return None


def _cookie(headers: Headers) -> str:
    cookie = SimpleCookie()
    with contextlib.suppress(CookieError):
        cookie.load(headers.get("cookie", ""))
    return cookie[COOKIE].value if COOKIE in cookie else ""


def _to_sign_in(method: str, path: str) -> Response:
    """Asks programs for the token, and leads people to the page that does."""
    if method == "GET" and not path.startswith("/api/"):
        return RedirectResponse("/sign-in", 303, headers=_HEADERS)
    return _refused(401, "send Authorization: Bearer TOKEN, with the server's web_token")


def _is_same_site(headers: Headers) -> bool:
    """Whether a request does not come from a page of another site; programs send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # every browser of today says it
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _refused(status: int, detail: str) -> Response:
    headers = {**_HEADERS, "www-authenticate": "Bearer"} if status == 401 else _HEADERS
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)
