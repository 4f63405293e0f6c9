"""Signing in with the server's token: the browser keeps a cookie that is made of it and does not tell it."""

from __future__ import annotations

import hashlib
import hmac

COOKIE = "rmqjobs_session"
LASTS = 12 * 3600  # seconds
THEMES = ("light", "dark")


def cookie_of(token: str) -> str:
    """What the cookie has to be; it ends for everybody when the token is changed."""
    return hmac.new(token.encode(), b"rmqjobs session 1", hashlib.sha256).hexdigest()


def is_right(given: str, wanted: str) -> bool:
    """Compares secrets, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())
