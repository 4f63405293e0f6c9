"""Shows how far a long command is: a bar on a terminal, a line now and then in a pipe. On stderr: results go to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rmqjobs.cli.errors import say

SAY_EVERY = 5.0  # seconds between two lines in a pipe
Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} a second" if task.speed else "")


@contextmanager
def progress(verb: str, total: int) -> Iterator[Advance]:
    """Shows how much of the total is done; call the result with how many more are done."""
    if not sys.stderr.isatty():
        yield _Lines(verb, total).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def reading(verb: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a stream is read, in percent; call the result with each place, and with the last one of all."""
    with ExitStack() as stack:
        first, done = 0, 0
        advance: Advance | None = None

        def move(offset: int, end: int) -> None:
            nonlocal first, done, advance
            if advance is None:
                first, advance = offset, stack.enter_context(progress(f"{verb}, in percent", 100))
            percent = 100 * (offset - first) // max(end - first, 1)
            advance(percent - done)
            done = percent
            if offset >= end:
                stack.close()

        yield move


class _Lines:
    """`drop: 3,000 of 5,000, 600 a second, 3 s left`."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb, self._total, self._done = verb, total, 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        now, self._done = time.monotonic(), self._done + count
        if now - self._said < SAY_EVERY or self._done >= self._total:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate if rate else 0.0
        say(f"{self._verb}: {self._done:,} of {self._total:,}, {rate:,.0f} a second, {left:,.0f} s left")
