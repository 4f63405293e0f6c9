"""How results are shown: tables with colour on a terminal, plain columns in a pipe, JSON when asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import humanize
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from rmqjobs.failures import whole_characters
from rmqjobs.wire.values import as_json


def console() -> Console:
    """Stdout; wide enough in a pipe that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else 400, highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: object) -> None:
    """One JSON document."""
    sys.stdout.write(as_json(value, indent=2).decode() + "\n")


def print_json_line(value: object) -> None:
    """One line of JSON."""
    sys.stdout.write(as_json(value).decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Prints `table_of` them."""
    console().print(table_of(columns, rows))


def table_of(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> RenderableType:
    """A table of the named columns; on a terminal too narrow for it, one block per row, so that nothing is cut."""
    terminal, shown = console(), [[_cell(row.get(column)) for column in columns] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_title(column), no_wrap=True)
    for cells in shown:
        table.add_row(*cells)
    if (
        not sys.stdout.isatty()
        or Measurement.get(terminal, terminal.options.update(max_width=10_000), table).maximum <= terminal.width
    ):
        return table
    blocks: list[str] = []
    for first, *others in shown:
        blocks.append(f"[bold]{first}[/bold]")
        blocks += [f"  [dim]{name.replace('_', ' ')}[/dim] {cell}" for name, cell in zip(columns[1:], others, strict=True)]
    return Group(*blocks)


def _title(column: str) -> str:
    return column.upper().replace("_", " ")


def age(at: datetime | None) -> str:
    """`2 hours ago` on a terminal, ISO 8601 in a pipe, a dash when unknown."""
    if at is None:
        return "-"
    if not sys.stdout.isatty():
        return at.astimezone(UTC).isoformat(timespec="seconds")
    return humanize.naturaltime(datetime.now(UTC) - at)


def shortened(text: str, limit: int = 60) -> str:
    """The first line, cut to the limit."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def clean(value: object) -> str:
    """A value for the terminal: no markup, no half characters, and no control characters, which could repaint the screen."""
    text = whole_characters(str(value))
    return escape(
        "".join(each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text)
    )


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:,}" if isinstance(value, int) else clean(value)
