import asyncio
import importlib.util

import pytest
import uvloop

from rmqjobs.cli import loops
from rmqjobs.errors import ConfigurationError


def test_uvloop_where_it_is_installed() -> None:
    assert loops.loop_factory("auto") is uvloop.new_event_loop
    assert loops.loop_factory("uvloop") is uvloop.new_event_loop
    assert loops.loop_factory("asyncio") is asyncio.new_event_loop


def test_asyncio_where_it_is_not_and_an_error_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(loops, "find_spec", lambda name: None if name == "uvloop" else found(name))
    assert loops.loop_factory("auto") is asyncio.new_event_loop
    with pytest.raises(ConfigurationError, match=r"pip install 'rmqjobs\[fast\]'"):
        loops.loop_factory("uvloop")
