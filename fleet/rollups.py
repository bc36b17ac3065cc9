"""Keep the minute rollups: jobs that ended, counted by version, customer and pool.

Each minute of a short recent window is computed afresh from the jobs and written over what stood there, so running
it twice, late or in two processes gives the same rows.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Max, Min

from controlplane.kernel.stats import Histogram
from fleet.models import Job, MinuteRollup
from fleet.retries import OURS

WINDOW = timedelta(minutes=3)
"""How far back an ordinary run looks: longer than any transaction may take to commit."""

MAX_CATCH_UP = timedelta(hours=24)

_FIELDS = ("succeeded", "failed", "failed_ours", "canceled", "expired", "wait", "run", "total", "busy_s", "cost_microusd", "price_microusd")


def recompute(*, now: datetime, since: datetime | None = None) -> int:
    """Write the rollups of every minute from `since` (by default: the window, or the last one written if older); returns rows written."""
    start = _floor(since or _begin(now))
    keyed: dict[tuple[datetime, UUID, UUID, int], dict[str, Any]] = defaultdict(_empty)
    # Smoke jobs are ours and small: counted here, they would flatter every figure made of these rows.
    ended = (
        Job.objects.filter(finished_at__gte=start)
        .exclude(source=Job.SMOKE)
        .values_list(
            "finished_at",
            "version_id",
            "customer_id",
            "pool_id",
            "status",
            "failure_class",
            "created_at",
            "queued_at",
            "started_at",
            "billable_s",
            "cost_microusd",
            "price_microusd",
        )
    )
    for finished, version, customer, pool, status, failure_class, created, queued, started, busy_s, cost, price in ended.iterator(chunk_size=2000):
        if finished is None:
            continue  # asked for by the filter; the type does not know
        row = keyed[_floor(finished), version, customer, pool]
        row[status] += 1
        if status in ("failed", "expired") and failure_class in OURS:
            row["failed_ours"] += 1
        if started is not None:
            row["wait"].add(max(0.0, (started - queued).total_seconds()))
            if status == "succeeded":
                row["run"].add(max(0.0, (finished - started).total_seconds()))
        row["total"].add(max(0.0, (finished - created).total_seconds()))
        row["busy_s"] += busy_s
        row["cost_microusd"] += cost
        row["price_microusd"] += price or 0
    rows = [
        MinuteRollup(minute=minute, version_id=version, customer_id=customer, pool_id=pool, **_stored(row))
        for (minute, version, customer, pool), row in sorted(keyed.items(), key=lambda item: (item[0][0], str(item[0][1:])))
    ]
    MinuteRollup.objects.bulk_create(
        rows, batch_size=200, update_conflicts=True, unique_fields=["minute", "version", "customer", "pool"], update_fields=list(_FIELDS)
    )
    return len(rows)


def _begin(now: datetime) -> datetime:
    """The window, or further back when the last rollup is older than that (the loop did not run)."""
    last = MinuteRollup.objects.aggregate(at=Max("minute"))["at"]
    if last is None:
        first = Job.objects.filter(finished_at__isnull=False).aggregate(at=Min("finished_at"))["at"]
        return max(first, now - MAX_CATCH_UP) if first else now - WINDOW
    return max(min(last, now - WINDOW), now - MAX_CATCH_UP)


def _empty() -> dict[str, Any]:
    return {
        "succeeded": 0, "failed": 0, "failed_ours": 0, "canceled": 0, "expired": 0,
        "wait": Histogram(), "run": Histogram(), "total": Histogram(), "busy_s": 0.0, "cost_microusd": 0, "price_microusd": 0,
    }  # fmt: skip


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to_json() if isinstance(value, Histogram) else value for key, value in row.items()}


def _floor(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
