"""What jobs of a version take, from measured history: for quotes, ETAs and weighted progress. Cached for half a minute a process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from controlplane.kernel import sql
from controlplane.kernel.stats import Histogram
from fleet.models import Attempt, Job, MinuteRollup

UNMEASURED_S = 10.0
_TTL_S = 30.0
_HISTORY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Measured seconds of one version; `samples` is how many runs that rests on."""

    p50_s: float = UNMEASURED_S
    p90_s: float = UNMEASURED_S
    p95_s: float = UNMEASURED_S
    samples: int = 0
    node_s: dict[str, float] = field(default_factory=dict)


_cache: dict[UUID, tuple[float, Estimate]] = {}


def of_version(version_id: UUID, *, now: datetime) -> Estimate:
    """Run time of a version over the last day; UNMEASURED_S before there is any history."""
    held = _cache.get(version_id)
    if held is not None and time.monotonic() - held[0] < _TTL_S:
        return held[1]
    run = Histogram()
    for row in MinuteRollup.objects.filter(version_id=version_id, minute__gte=now - _HISTORY).values_list("run", flat=True).iterator():
        run.merge(Histogram.from_json(row))
    p50, p90, p95 = run.quantile(0.5), run.quantile(0.9), run.quantile(0.95)
    nodes: dict[str, list[float]] = {}
    recent = Attempt.objects.filter(job__version_id=version_id, state="succeeded").order_by("-id").values_list("nodes", flat=True)[:10]
    for row in recent:
        for item in row:
            run_s = item.get("run_s")
            if isinstance(run_s, int | float) and not item.get("cached"):
                nodes.setdefault(str(item.get("node")), []).append(float(run_s))
    estimate = Estimate(
        p50_s=p50 if p50 is not None else UNMEASURED_S,
        p90_s=p90 if p90 is not None else UNMEASURED_S,
        p95_s=p95 if p95 is not None else UNMEASURED_S,
        samples=run.count,
        node_s={node: round(sum(v) / len(v), 4) for node, v in nodes.items()},
    )
    _cache[version_id] = (time.monotonic(), estimate)
    if len(_cache) > 2000:
        _cache.clear()
    return estimate


def forget() -> None:
    """Drop what is cached (tests)."""
    _cache.clear()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands: how many are before it, and about when it will be done."""

    position: int | None = None
    eta_s: float | None = None


def place(job: Job, *, now: datetime) -> Place:
    """Position in the queue (0 is next) and estimated seconds to the end. Nothing for a job that is over."""
    if job.status == "running":
        expected = of_version(job.version_id, now=now).p50_s
        gone = (now - job.started_at).total_seconds() if job.started_at else 0.0
        return Place(None, round(max(expected - gone, expected * (1 - job.progress) * 0.5, 0.1), 1))
    if job.status != "queued":
        return Place()
    ((before, workers),) = sql.rows(_BEFORE, [job.pool_id, job.priority, job.fair_tag, job.id, COUNTED, job.pool_id])
    expected = of_version(job.version_id, now=now).p50_s
    return Place(before, round(expected * (1 + before / max(1, workers)), 1))


COUNTED = 10_000
"""How far back a position is counted; further back it reads as this many."""

_BEFORE = """
SELECT
  (SELECT count(*) FROM (SELECT 1 FROM fleet_job WHERE pool_id = %s AND status = 'queued' AND (priority, fair_tag, id) < (%s, %s, %s) LIMIT %s) AS ahead),
  (SELECT count(*) FROM fleet_worker WHERE pool_id = %s AND state IN ('idle', 'busy'))
"""
