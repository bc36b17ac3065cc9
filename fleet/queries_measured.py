"""What workflows really do: runs, success, speed and money from minute rollups, over a day where that holds enough runs, else over four weeks.

Until customers ran a workflow, its speed and cost are those of its smoke runs, and the source says so: these use the
smallest inputs, so the two are never mixed. Success counts both until customers' runs are enough by themselves.
Bounded whatever the traffic: sums are the database's, histograms come from the newest rows only, and each process
looks again at most once a minute.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Sum

from builds.models import Channel, Workflow
from controlplane.kernel.stats import Histogram
from fleet.models import Job, MinuteRollup, Output, SmokeRun

DAY, MONTH = timedelta(hours=24), timedelta(days=28)
ENOUGH = 20
MOST_HISTOGRAMS = 500
MOST_SAMPLED_JOBS = 20
MOST_SMOKE_RUNS = 30
TTL_S = 60.0
_SUMS = ("succeeded", "failed", "expired", "canceled", "busy_s", "cost_microusd", "price_microusd")


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one workflow. None means that nothing was measured, never zero."""

    runs: int = 0
    window_s: int = int(DAY.total_seconds())
    success_rate: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    busy_s_per_job: float | None = None
    cost_per_job_microusd: int | None = None
    price_per_job_microusd: int | None = None
    images_per_job: float | None = None
    smoke_runs: int = 0
    source: str | None = None  # what speed and money rest on: jobs, smoke_runs, or nothing


_cache: dict[UUID, tuple[float, Measured]] = {}


def measured(workflow_ids: Iterable[UUID] | None = None, *, now: datetime) -> dict[UUID, Measured]:
    """Figures by workflow; without ids, of all that are not archived."""
    wanted = list(workflow_ids) if workflow_ids is not None else list(Workflow.objects.filter(archived_at__isnull=True).values_list("id", flat=True))
    fresh_since = time.monotonic() - TTL_S
    missing = [i for i in wanted if i not in _cache or _cache[i][0] < fresh_since]
    if missing:
        if len(_cache) > 5000:
            _cache.clear()
        at = time.monotonic()
        for workflow_id, figures in _read(missing, now=now).items():
            _cache[workflow_id] = (at, figures)
    return {i: held[1] if (held := _cache.get(i)) else Measured() for i in wanted}


def forget() -> None:
    """Drop what is kept (tests)."""
    _cache.clear()


def _read(ids: list[UUID], *, now: datetime) -> dict[UUID, Measured]:
    day, month = _sums(ids, since=now - DAY), None
    figures = {}
    for workflow_id in ids:
        window, sums = DAY, day.get(workflow_id, {})
        if _runs(sums) < ENOUGH:
            month = _sums(ids, since=now - MONTH) if month is None else month
            window, sums = MONTH, month.get(workflow_id, {})
        figures[workflow_id] = _figures(workflow_id, sums, window=window, now=now)
    few = [workflow_id for workflow_id, held in figures.items() if held.runs < ENOUGH]
    for workflow_id, tried in _tried(few, since=now - MONTH).items():
        figures[workflow_id] = _with_smoke(figures[workflow_id], tried)
    return figures


def _tried(ids: list[UUID], *, since: datetime) -> dict[UUID, list[SmokeRun]]:
    """Smoke runs that really ran, of what production runs, newest first."""
    found: dict[UUID, list[SmokeRun]] = defaultdict(list)
    live = Channel.objects.filter(name=Channel.Name.PRODUCTION, workflow__in=ids).values("version")
    runs = SmokeRun.objects.filter(version__in=live, build__isnull=True, finished_at__gte=since).order_by("-requested_at")
    for run in runs.values_list("version__workflow_id", "state", "report")[: MOST_SMOKE_RUNS * max(1, len(ids))]:
        workflow_id, state, report = run
        if report.get("run_s") is not None and len(found[workflow_id]) < MOST_SMOKE_RUNS:
            found[workflow_id].append(SmokeRun(state=state, report=report))
    return {workflow_id: kept for workflow_id, kept in found.items() if kept}


def _with_smoke(figures: Measured, tried: list[SmokeRun]) -> Measured:
    passed = [run.report for run in tried if run.state == SmokeRun.State.PASSED]
    judged = figures.runs + len(tried)
    good = round((figures.success_rate or 0.0) * figures.runs) + len(passed)
    figures = replace(figures, smoke_runs=len(tried), success_rate=good / judged)
    timed = [report for report in passed if not report.get("cached")]
    if figures.source is not None or not timed:
        return figures
    seconds = sorted(float(report["run_s"]) for report in timed)
    return replace(
        figures,
        source="smoke_runs",
        p50_s=seconds[(len(seconds) - 1) // 2],
        p95_s=seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))],
        busy_s_per_job=sum(float(report.get("busy_s") or 0) for report in timed) / len(timed),
        cost_per_job_microusd=round(sum(int(report.get("cost_microusd") or 0) for report in timed) / len(timed)),
        images_per_job=sum(int(report.get("images") or 0) for report in timed) / len(timed) or None,
    )


def _sums(ids: list[UUID], *, since: datetime) -> dict[UUID, dict[str, float]]:
    rows = MinuteRollup.objects.filter(version__workflow_id__in=ids, minute__gte=since).values("version__workflow_id").order_by()
    totals: Any = rows.annotate(**{f"sum_{name}": Sum(name) for name in _SUMS})
    return {row["version__workflow_id"]: {name: row[f"sum_{name}"] or 0 for name in _SUMS} for row in totals}


def _runs(sums: dict[str, float]) -> int:
    return int(sum(sums.get(name, 0) for name in ("succeeded", "failed", "expired")))


def _figures(workflow_id: UUID, sums: dict[str, float], *, window: timedelta, now: datetime) -> Measured:
    runs, good = _runs(sums), int(sums.get("succeeded", 0))
    window_s = int(window.total_seconds())
    if not runs:
        return Measured(window_s=window_s)
    run = Histogram()
    recent = MinuteRollup.objects.filter(version__workflow_id=workflow_id, minute__gte=now - window).order_by("-minute")
    for row in recent.values_list("run", flat=True)[:MOST_HISTOGRAMS]:
        run.merge(Histogram.from_json(row))
    return Measured(
        runs=runs,
        window_s=window_s,
        success_rate=good / runs,
        p50_s=run.quantile(0.5),
        p95_s=run.quantile(0.95),
        # Seconds of jobs that failed are in the sum, so the time of those that succeeded bounds it.
        busy_s_per_job=min(sums["busy_s"] / good, run.mean or sums["busy_s"]) if good else None,
        cost_per_job_microusd=round(sums["cost_microusd"] / good) if good else None,
        price_per_job_microusd=round(sums["price_microusd"] / good) if good else None,
        images_per_job=_images(workflow_id) if good else None,
        source="jobs" if good else None,
    )


def _images(workflow_id: UUID) -> float | None:
    """Images a recent job of the workflow gave, on average; None when it gives none."""
    jobs = list(
        Job.objects.filter(workflow_id=workflow_id, status=Job.Status.SUCCEEDED)
        .exclude(source=Job.SMOKE)
        .order_by("-id")
        .values_list("id", flat=True)[:MOST_SAMPLED_JOBS]
    )
    images = Output.objects.filter(job__in=jobs, published=True, kind="image").aggregate(n=Count("id"))["n"]
    return images / len(jobs) if images else None
