"""Chart specifications for charts.js, from what the queries gave. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fleet.models import ScalingDecision
from fleet.queries_traffic import Times, Traffic, steps

YSIZE = 58
COLOURS = ("--c2", "--c4", "--c3", "--c5")


def traffic(found: Traffic, *, events: Sequence[dict[str, Any]] = (), height: int = 270) -> dict[str, Any]:
    """Jobs and failures a minute."""
    minutes = elapsed(found)
    good, failed, expired = (found.line(name) for name in ("succeeded", "failed", "expired"))
    bad = [round((a + b) / m, 2) for a, b, m in zip(failed, expired, minutes, strict=True)]
    done = [round((g + a + b) / m, 2) for g, a, b, m in zip(good, failed, expired, minutes, strict=True)]
    return {
        "key": "traffic", "x": found.times(), "height": height, "fmt": "num", "sync": "page", "ysize": YSIZE, "events": list(events),
        "series": [{"label": "Jobs/min", "color": "--c1", "fill": 0.1, "data": done}, {"label": "Failed/min", "color": "--bad", "fill": 0.25, "data": bad}],
    }  # fmt: skip


def elapsed(found: Traffic) -> list[float]:
    """Minutes of each step that lie inside the range: the last step may have only begun."""
    end = found.end.timestamp()
    return [max(1.0, min(found.step_s, end - at) / 60) for at in found.times()]


def waits(found: Times, keys: Sequence[tuple[Any, str]], *, target_s: float | None, events: Sequence[dict[str, Any]] = (), height: int = 160) -> dict[str, Any]:
    """Wait p95 of at most four pools."""
    lines = [
        {"label": f"{name} p95", "color": COLOURS[i], "data": found.line(0.95, key), **({"dash": [5, 4]} if i > 1 else {})}
        for i, (key, name) in enumerate(keys[:4])
    ]
    spec = {"key": "waits", "x": _x(found), "height": height, "fmt": "sec", "sync": "page", "ysize": YSIZE, "events": list(events), "series": lines}
    return _with_target(spec, target_s)


def quantiles(found: Times, *, key: str, target_s: float | None = None, events: Sequence[dict[str, Any]] = (), height: int = 160) -> dict[str, Any]:
    """p50 and p95."""
    lines = [{"label": "p95", "color": "--c3", "data": found.line(0.95)}, {"label": "p50", "color": "--c6", "dash": [5, 4], "data": found.line(0.5)}]
    return _with_target(
        {"key": key, "x": _x(found), "height": height, "fmt": "sec", "sync": "page", "ysize": YSIZE, "events": list(events), "series": lines}, target_s
    )


def money(found: Traffic) -> dict[str, Any]:
    """Revenue and cost a step."""
    usd = [[round(v / 1e6, 4) for v in found.line(name)] for name in ("price_microusd", "cost_microusd")]
    return {
        "key": "money", "x": found.times(), "height": 170, "fmt": "usd", "bars": found.step_s >= 43200,
        "series": [
            {"label": "Revenue", "color": "--c1", "fill": 0.3, "type": "bars", "data": usd[0]},
            {"label": "Our cost", "color": "--c1", "type": "bars", "data": usd[1]},
        ],
    }  # fmt: skip


def _x(found: Times) -> list[int]:
    return steps(found.start, found.end, found.step_s)


def _with_target(spec: dict[str, Any], target_s: float | None) -> dict[str, Any]:
    """The target line, and room for it."""
    if target_s is None:
        return spec
    known = [v for s in spec["series"] for v in s["data"] if v is not None]
    if known and max(known) * 4 >= target_s:
        spec["target"] = {"v": target_s, "label": f"target {target_s:g} s"}
        spec["ymax"] = round(max(target_s, *known) * 1.15, 3)
    return spec


def markers(decisions: Iterable[ScalingDecision]) -> list[dict[str, Any]]:
    """Scale-ups and scale-downs as marks on the time axis."""
    found = []
    for d in decisions:
        if d.action in ("up", "down") and d.applied:
            found.append({"t": int(d.at.timestamp()), "kind": d.action, "label": f"{d.pool.slug} {signed(d.applied)}"})
    return found


def signed(n: int) -> str:
    """+2 or −1."""
    return f"+{n}" if n > 0 else f"−{-n}" if n < 0 else "0"
