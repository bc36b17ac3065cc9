"""The pool's two charts on one time axis: capacity against demand with the forecast ahead of now, and the waits below. Pure but for its rows.

Everything is kept in workers and shown in the unit asked for: workers, jobs a minute, or dollars an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.console import charts, numbers, ranges
from fleet.models import PlannedDemand, Pool, ScalingDecision
from fleet.queries_capacity import Ahead, Minutes
from fleet.queries_traffic import Times

UNITS = (("workers", "Workers"), ("jobs", "Jobs/min"), ("usd", "$/hour"))
FULL_HISTORY_DAYS = 7


@dataclass(frozen=True, slots=True)
class Unit:
    """How workers are shown: so many of something for each."""

    key: str
    per_worker: float
    fmt: str
    word: str

    def of(self, workers: float | None) -> float | None:
        return None if workers is None else round(workers * self.per_worker, 4)


def unit(key: str, pool: Pool, *, job_s: float | None) -> Unit:
    """The unit asked for; workers when it cannot be had (no job was measured, or workers cost nothing)."""
    if key == "jobs" and job_s:
        return Unit("jobs", 60 / job_s, "num", "jobs a minute")
    if key == "usd" and pool.price_per_hour_microusd:
        return Unit("usd", pool.price_per_hour_microusd / 1e6, "usd", "dollars an hour")
    return Unit("workers", 1.0, "num", "workers")


def capacity(
    minutes: Minutes,
    *,
    pool: Pool,
    ahead: Ahead | None,
    plans: Sequence[PlannedDemand],
    until: datetime,
    shown: Unit,
    maximum: int,
    events: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Ready and needed up to now; planned, forecast and its 80% band after it; the pool's maximum."""
    past = minutes.times()
    future = times_ahead(minutes, until)
    gap: list[float | None] = [None] * len(past)
    needed = minutes.arriving() if shown.key == "jobs" else [shown.of(v) for v in minutes.needed()]
    ready = [shown.of(v) for v in minutes.line("ready")]
    after: list[float | None] = [None] * len(future)
    series: list[dict[str, Any]] = [
        {"label": "Ready", "color": "--c1", "type": "step", "fill": 0.08, "data": [*ready, *after]},
        {"label": "Needed", "color": "--c2", "data": [*needed, *after]},
    ]
    spec: dict[str, Any] = {
        "key": "capacity", "x": [*past, *future], "height": 260, "fmt": shown.fmt, "sync": "page", "ysize": charts.YSIZE, "events": list(events),
        "target": {"v": shown.of(maximum), "label": f"pool maximum {maximum:,}", "color": "--text-3"}, "series": series,
    }  # fmt: skip
    if future:
        spec["now"] = int(minutes.end.timestamp())
        join = len(past) - 1  # the lines ahead begin at now, not a step later
        times = [past[-1], *future]
        points = [ahead.at(t) if ahead else None for t in times]
        floor = [planned(ahead, pool, plans, t) for t in times]
        series.append({"label": "Planned", "color": "--c1", "type": "step", "dash": [5, 4], "data": [*gap[:join], *(shown.of(v) for v in floor)]})
        if ahead is not None:
            lines = _forecast(points, ahead, times, shown)
            names = (("Forecast", [5, 4], 2), ("Forecast, low 10%", None, 0), ("Forecast, high 10%", None, 0))
            for (label, dash, width), values in zip(names, lines, strict=True):
                hidden = {"hide": 1} if not width else {"dash": dash}
                series.append({"label": label, "color": "--c2", "data": [*gap[:join], *values], **hidden})
            spec["bands"] = [[6, 5, "--c2", 0.17]]
    top = max((v for line in series for v in line["data"] if v is not None), default=0.0)
    limit = shown.of(maximum) or 0.0
    # A maximum far above everything would press the lines flat: it is then left out and said in words.
    if limit > 6 * top > 0:
        spec.pop("target")
        limit = 0.0
    spec["ymax"] = round(max(limit, top, shown.per_worker) * 1.14, 4)
    return spec


def together(minutes: Minutes, *, maximum: int) -> dict[str, Any]:
    """Ready and needed of several pools."""
    ready, needed = minutes.line("ready"), minutes.needed()
    spec = {
        "key": "fleet", "x": minutes.times(), "height": 230, "fmt": "num", "sync": "page", "ysize": charts.YSIZE, "events": [],
        "series": [
            {"label": "Ready", "color": "--c1", "type": "step", "fill": 0.08, "data": ready},
            {"label": "Needed", "color": "--c2", "data": needed},
        ],
    }  # fmt: skip
    top = max((v for v in [*ready, *needed] if v is not None), default=0.0)
    if 0 < maximum <= 6 * top:
        spec["target"] = {"v": maximum, "label": f"maximum of all pools {maximum:,}", "color": "--text-3"}
        top = max(top, maximum)
    return spec | {"ymax": round(max(top, 1.0) * 1.14, 3)}


def planned(ahead: Ahead | None, pool: Pool, plans: Sequence[PlannedDemand], at: int) -> float:
    """Workers the day plan keeps at least: the forecast's floor and what events ask for, within the pool's bounds; else its base."""
    least = pool.base if pool.forecast_base is None else min(pool.forecast_base, pool.base)
    floor = ahead.floor_at(at) if ahead is not None and ahead.row.usable and pool.forecast_floor else None
    kept = pool.base if floor is None else max(least, math.ceil(floor))
    asked = [p.workers for p in plans if p.starts_at.timestamp() <= at < p.ends_at.timestamp()]
    return float(min(pool.max, max([kept, *asked])))


def _forecast(points: Sequence[Sequence[float] | None], ahead: Ahead, times: Sequence[int], shown: Unit) -> list[list[float | None]]:
    """p50, p10, p90 in the unit shown."""
    if shown.key == "jobs":
        found = [ahead.jobs_at(t) for t in times]
        return [[None if p is None or len(p) < 3 else round(p[i], 3) for p in found] for i in (0, 1, 2)]
    return [[None if p is None or len(p) < 3 else shown.of(p[i]) for p in points] for i in (0, 1, 2)]


def times_ahead(minutes: Minutes, until: datetime) -> list[int]:
    """The steps after now."""
    last = minutes.times()[-1]
    return list(range(last + minutes.step_s, int(until.timestamp()) + 1, minutes.step_s)) if until > minutes.end else []


def waits(found: Times, *, target_s: float, future: Sequence[int], events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Wait p95 and p50 up to now, on the same axis."""
    spec = charts.quantiles(found, key="waits", target_s=target_s, events=events)
    if future:
        spec["x"] = [*spec["x"], *future]
        spec["now"] = int(found.end.timestamp())
        for line in spec["series"]:
            line["data"] = [*line["data"], *([None] * len(future))]
    return spec


def events(decisions: Sequence[ScalingDecision], plans: Sequence[PlannedDemand]) -> list[dict[str, Any]]:
    """Marks on the time axis: sizes that changed, and what was announced."""
    marks = [{"t": int(d.at.timestamp()), "kind": d.action, "label": charts.signed(d.applied)} for d in decisions if d.action in ("up", "down") and d.applied]
    marks += [{"t": int(d.at.timestamp()), "kind": "incident", "label": "Halted"} for d in decisions if d.action == "halted"]
    return marks + [{"t": int(p.starts_at.timestamp()), "kind": "note", "label": plan_label(p)} for p in plans]


def plan_label(plan: PlannedDemand) -> str:
    """Harbor: batch of 2,400 jobs."""
    name = plan.name or (plan.customer.name if plan.customer else "")
    name = name if len(name) <= 48 else f"{name[:47].rstrip()}…"
    if plan.kind == PlannedDemand.Kind.BATCH:
        batch = f"batch of {numbers.plural(plan.jobs, 'job')}"
        return f"{name}: {batch}" if name else batch.capitalize()
    wish = f"at least {numbers.plural(plan.workers, 'worker')}" if plan.workers else f"{plan.factor:g} times the usual"
    return f"{name or 'Event'}: {wish}"


def forecast_words(ahead: Ahead | None, *, now: datetime, enough_days: float = FULL_HISTORY_DAYS) -> str:
    """How far the forecast can be trusted, or what it lacks."""
    if ahead is None:
        return "No forecast yet: it needs some days of demand. Until then only what is seen now counts."
    row = ahead.row
    floor = f" {row.why}" if row.why else ""
    if not row.usable:
        floor = f" Not used for the floor: {row.why.rstrip('.') or 'its error is too large'}."
    if row.history_days < enough_days:
        days = row.history_days
        held = numbers.plural(int(days * 24), "hour") if days < 1 else numbers.plural(round(days, 1), "day")
        needs = f"{enough_days:g} days" if days < 1 else f"{enough_days:g}"
        lacks = "" if row.usable else f" of the {needs} it needs"
        return f"The forecast has {held} of data{lacks}; the band is wide." + ("" if "of data" in row.why else floor)  # once is enough
    tested = row.backtest if isinstance(row.backtest, dict) else {}
    parts = []
    if isinstance(wape := tested.get("wape"), int | float) and math.isfinite(wape):
        parts.append(f"error {numbers.pct(wape)} of demand")
    if isinstance(coverage := tested.get("coverage"), int | float) and math.isfinite(coverage):
        parts.append(f"its 80% range held {numbers.pct(coverage)} of the time")
    missed = _missed(tested.get("published"))
    tests = f"{'tested on the past: ' if missed else ''}{', '.join(parts)}" if parts else ""
    found = [text for text in (missed, tests) if text]
    said = f"Forecast by {row.method}" + (f": {'; '.join(found)}" if found else "")
    return f"{said}, made {numbers.ago(row.made_at, now)}.{floor}"


def _missed(published: Any) -> str:
    """By how much the forecasts that were made missed what came; empty while none can be compared."""
    if not isinstance(published, dict):
        return ""
    found = []
    for name, when in (("half_hour", "at 30 min"), ("two_hours", "at 2 h"), ("day", "a day ahead")):
        if isinstance(share := published.get(name), int | float) and math.isfinite(share):
            found.append(f"{numbers.pct(share)} {when}")
    return f"in the last {published.get('days', 7)} d it really missed demand by {', '.join(found)}" if found else ""


def summary(minutes: Minutes, ahead: Ahead | None, *, ready: int, maximum: int, until: datetime) -> str:
    """The finding, for those who do not see the chart."""
    needed = [v for v in minutes.needed() if v is not None]
    now_needed = f"{numbers.count(round(needed[-1], 1))} are needed" if needed else "nothing was written down yet"
    said = f"Workers ready and needed. {numbers.count(ready)} are ready now of at most {maximum:,}; {now_needed}."
    peak = ahead.peak(start=minutes.end, end=until) if ahead and until > minutes.end else None
    return f"{said} The forecast peaks near {peak[0]:.1f} at {peak[1]:%H:%M} UTC." if peak else said


def legend(spec: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The strokes that are in the chart."""
    found = []
    for line in spec["series"]:
        if not line.get("hide"):
            found.append((line["label"], line["color"], "dash" if line.get("dash") else "line"))
    return found + ([("80% range", "--c2", "area")] if spec.get("bands") else [])


def until(span: ranges.Range, ahead_s: float) -> datetime:
    """Where the chart ends: ahead only when the range runs up to now."""
    return span.end + timedelta(seconds=ahead_s) if span.ends_now else span.end
