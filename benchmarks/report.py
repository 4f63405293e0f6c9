"""Tables, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

BEGIN, END = "<!-- written by make bench -->\n", "<!-- end -->\n"


@dataclass
class Table:
    """A heading, what it is about, and rows."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    remark: str = ""

    def print(self, out: Console) -> None:
        """Prints it on the terminal."""
        shown = RichTable(*self.columns, title=self.title, title_justify="left", box=None)
        for row in self.rows:
            shown.add_row(*row)
        out.print(shown)
        if self.remark:
            out.print(self.remark, style="dim")
        out.print()

    def markdown(self) -> str:
        """The table as the page has it."""
        lines = [f"## {self.title}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (self.columns, ["---"] * len(self.columns), *self.rows)]
        return "\n".join([*lines, *(["", self.remark] if self.remark else [])]) + "\n"


def write(page: Path, introduction: str, tables: Iterable[Table]) -> None:
    """Puts the tables into the page, in place of the former ones."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join([introduction + "\n", *(table.markdown() for table in tables)])
    page.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


def of(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """The median, and the span where there are several."""
    ordered = sorted(values)
    middle = form.format(ordered[len(ordered) // 2])
    return middle if len(values) == 1 else f"{middle} ({form.format(ordered[0])} to {form.format(ordered[-1])})"
