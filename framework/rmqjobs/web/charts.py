"""Charts that the server draws: SVG, readable without script."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 960, 120


def bars(values: Sequence[tuple[str, int, int]]) -> Markup:
    """Bars side by side, each of a good part and a bad one on top.

    Args:
        values: Label, good and bad count of each; at least one.
    """
    highest = max(good + bad for _, good, bad in values) or 1
    step = WIDTH / len(values)
    parts = []
    for place, (label, good, bad) in enumerate(values):
        low, high = HEIGHT * bad / highest, HEIGHT * good / highest
        x, width = place * step, max(step - 2, 1)
        parts.append(f"<g><title>{label}: {good:,} done, {bad:,} given up</title>")
        parts.append(f'<rect x="{x:.1f}" y="{HEIGHT - high:.1f}" width="{width:.1f}" height="{high:.1f}"/>')
        parts.append(
            f'<rect class="bad" x="{x:.1f}" y="{HEIGHT - high - low:.1f}" width="{width:.1f}" height="{low:.1f}"/></g>'
        )
    first, last = values[0][0], values[-1][0]
    told = f"{sum(good for _, good, _ in values):,} done and {sum(bad for _, _, bad in values):,} given up, {first} to {last}"
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{told}">'
    most = f'<p class="ends soft"><span>{highest:,} at most</span></p>'
    ends = f'<p class="ends soft"><span>{first}</span><span>done, and given up in red</span><span>{last}</span></p>'
    return Markup(f"{most}{head}{''.join(parts)}</svg>{ends}")  # noqa: S704 - made of numbers and times
