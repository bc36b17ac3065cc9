"""/ops/_components/: every component in every state, for people and for the browser tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from controlplane.console import pages, ranges, roles

COLOURS = [
    ("--text", "body"), ("--text-2", "secondary"), ("--text-3", "captions"), ("--accent", "links, focus, primary"), ("--ok", "healthy"),
    ("--warn", "needs attention"), ("--bad", "failing, destructive"), ("--info", "in progress"), ("--idle", "off, unknown"),
]  # fmt: skip
SERIES = [
    ("--c1", "primary, capacity, current version"), ("--c2", "demand, second series"), ("--c3", "latency p95"), ("--c4", "third series"),
    ("--c5", "fourth series"), ("--c6", "baseline, previous"),
]  # fmt: skip
STATES = [
    "queued",
    "running",
    "succeeded",
    "failed",
    "canceled",
    "expired",
    "ordered",
    "starting",
    "idle",
    "busy",
    "draining",
    "stopped",
    "lost",
    "active",
    "suspended",
]


def example_chart(now_s: int) -> dict[str, Any]:
    """A day with an event, a target, a gap and a future."""
    x = [now_s + i * 1800 for i in range(-48, 9)]
    wave = [round(30 + 20 * ((i * 7) % 11) / 11 + (12 if 20 < i < 30 else 0), 1) for i in range(57)]
    return {
        "key": "example", "x": x, "height": 230, "fmt": "num", "now": now_s, "target": {"v": 60, "label": "maximum 60"},
        "series": [
            {"label": "Jobs a minute", "color": "--c1", "fill": 0.1, "data": [v if i < 49 and not 8 < i < 12 else None for i, v in enumerate(wave)]},
            {"label": "Forecast", "color": "--c2", "dash": [5, 4], "data": [None] * 48 + wave[48:]},
        ],
        "events": [{"t": now_s - 30000, "kind": "deploy", "label": "example v2 to 100%"}, {"t": now_s - 12000, "kind": "up", "label": "+1 worker"}],
    }  # fmt: skip


@roles.staff
def components(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    context = {
        "colours": COLOURS,
        "series_colours": SERIES,
        "states": STATES,
        "moment": now - timedelta(minutes=18),
        "chart": example_chart(int(now.timestamp()) // 60 * 60),
        "values": [3, 4, 6, 5, None, 8, 9, 7, 11],
        "nothing": [],
        "kv_rows": [("Minimum, maximum", "4, 24"), ("Wait target p95", "60 s"), ("Halted", "since 14:21", "bad")],
        "tab_items": [("Overview", "?tab=1", True, None), ("Versions", "?tab=2", False, 18), ("Jobs", "?tab=3", False, 31204)],
        "parts": [("Running", 79, "--c1"), ("Loading models", 6, "--c3"), ("Idle", 9, "--line-strong"), ("Starting", 6, "--c5")],
        "bar_rows": [
            ("Product shot", 0.68, "$2,048"),
            ("Clip from image", 0.22, "$663", "warn"),
            ("a-workflow-with-a-name-that-nobody-would-choose-but-somebody-did", 1.3, "131% used", "bad"),
        ],
        "legend_items": [
            ("Ready", "--c1", "line"),
            ("Forecast", "--c2", "dash"),
            ("80% range", "--c2", "area"),
            ("Baseline", "--c6", "dot"),
            ("Cost", "--c1", "box"),
        ],
        "micro": [None, 0, 3600, 12_040_000, 15_688_000_000, -860_000],
        "seconds": [None, 0, 0.043, 3.14, 98, 108.2, 22320, 777600],
        "shares": [None, 0, 0.0004, 0.081, 0.57, 0.9943, 0.99999, 1],
        "counts": [None, 0, 57.25, 198896, 10**12],
        "sizes": [None, 0, 812, 4_020_000, 9_340_000_000],
        "curl": "curl -X POST https://comfyplane.example/v1/workflows/product-shot/jobs \\\n"
        '  -H \'Authorization: Bearer cp_…\' \\\n  -d \'{"inputs": {"prompt": "a <b>bold</b> mug"}}\'',
        "options": [("a", "Growth"), ("b", "Enterprise")],
    }
    return pages.page(request, "console/components.html", context, title="Components", active="", span=ranges.parse(request.GET, now=now), now=now)
