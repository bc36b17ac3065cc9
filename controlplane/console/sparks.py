"""Small pictures drawn on the server: sparklines as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html
from django.utils.safestring import SafeString


def spark(values: Sequence[float | None], *, label: str, color: str = "--c1", width: int = 92, height: int = 26) -> SafeString:
    """A line with its last point marked. A missing value is a gap; nothing at all is an empty string."""
    known = [v for v in values if v is not None]
    if not known:
        return SafeString("")
    low, high = min(known), max(known)
    spread = (high - low) or 1.0
    flat = high == low

    def x(i: int) -> float:
        return round(1 + i * (width - 5) / max(1, len(values) - 1), 1)

    def y(v: float) -> float:
        return round(height / 2 if flat and v else height - 3 - (v - low) / spread * (height - 6), 1)

    runs: list[list[str]] = [[]]
    last = (0.0, 0.0)
    for i, v in enumerate(values):
        if v is None:
            runs.append([])
            continue
        last = (x(i), y(v))
        runs[-1].append(f"{last[0]},{last[1]}")
    lines = SafeString("".join(f'<polyline points="{" ".join(run)}"/>' for run in runs if len(run) > 1))  # numbers only
    return format_html(
        '<svg class="spark" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><g fill="none" stroke="var({})" stroke-width="1.6" '
        'stroke-linejoin="round">{}</g><circle cx="{}" cy="{}" r="2.4" fill="var({})"/></svg>',
        width, height, width, height, label, color, lines, last[0], last[1], color,
    )  # fmt: skip
