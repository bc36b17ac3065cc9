"""Keep the minutes of demand and capacity: what arrived, and what stood ready for it.

Arrivals are counted afresh over a short window each time, so running it twice, late or in two processes gives the same rows.
Recent jobs are found by their id, which begins with the time they came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Max, Min, Sum

from controlplane.kernel.ids import first_uuid7
from fleet import job_times, measures
from fleet.models import CapacityMinute, DemandMinute, Job, Pool

WINDOW = timedelta(minutes=3)
SLACK = timedelta(minutes=5)
"""How far an id may run ahead of its row's time, as clocks of processes differ."""
MAX_CATCH_UP = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs a second over the last so many minutes."""

    m1: float
    m5: float
    m10: float
    h1: float


def recompute(*, now: datetime, since: datetime | None = None) -> int:
    """Write the arrivals of every minute from `since` (by default: the window, or the last one written if older); returns rows written."""
    start = _floor(since or _begin(now))
    pools = {pool.id: pool for pool in Pool.objects.all()}
    arrived: dict[tuple[int, datetime, UUID], dict[UUID, int]] = defaultdict(lambda: defaultdict(int))
    came = Job.objects.filter(id__gte=first_uuid7(start - SLACK), created_at__gte=start).exclude(source__in=[Job.SMOKE, "cache"])
    for pool_id, workflow_id, version_id, created in (
        came.order_by().values_list("pool_id", "workflow_id", "version_id", "created_at").iterator(chunk_size=5000)
    ):
        arrived[pool_id, _floor(created), workflow_id][version_id] += 1
    rows = []
    for (pool_id, minute, workflow_id), counts in sorted(arrived.items(), key=lambda item: (item[0][0], item[0][1], str(item[0][2]))):
        times = job_times.of_pool(pools[pool_id], now=now) if pool_id in pools else job_times.Times()
        rows.append(DemandMinute(pool_id=pool_id, minute=minute, workflow_id=workflow_id, arrivals=sum(counts.values()), work_s=times.work_s(dict(counts))))
    DemandMinute.objects.bulk_create(
        rows, batch_size=500, update_conflicts=True, unique_fields=["pool", "minute", "workflow"], update_fields=["arrivals", "work_s"]
    )
    return len(rows)


def rates(pool: Pool, *, now: datetime) -> Rates:
    """How fast jobs arrive. The minute that has only begun is filled up from the one that leaves the stretch."""
    this = _floor(now)
    into = (now - this).total_seconds() / 60
    found = dict(
        DemandMinute.objects.filter(pool=pool, minute__gte=this - timedelta(minutes=60), minute__lte=this)
        .order_by()
        .values_list("minute")
        .annotate(n=Sum("arrivals"))
    )

    def over(minutes: int) -> float:
        whole = sum(found.get(this - timedelta(minutes=back), 0) for back in range(minutes))
        return (whole + found.get(this - timedelta(minutes=minutes), 0) * (1 - into)) / (60 * minutes)

    return Rates(over(1), over(5), over(10), over(60))


def waiting(pool: Pool, *, with_smoke: bool, now: datetime) -> tuple[int, dict[UUID, int], datetime | None]:
    """How many jobs wait for a worker, how many of each version, and since when the oldest has. A class that is paused waits for none."""
    jobs = Job.objects.filter(pool=pool, status=Job.Status.QUEUED)
    if (paused := measures.paused_from(pool.id, now=now)) is not None:
        jobs = jobs.filter(priority__lt=paused)
    if not with_smoke:
        jobs = jobs.exclude(source=Job.SMOKE)
    rows = list(jobs.order_by().values_list("version_id").annotate(n=Count("id"), oldest=Min("queued_at")))
    return sum(n for _, n, _ in rows), {version: n for version, n, _ in rows}, min((at for _, _, at in rows if at), default=None)


def note(pool: Pool, values: Mapping[str, object], *, now: datetime) -> None:
    """Write down what the pool has in this minute; the last word of a minute stands."""
    CapacityMinute.objects.update_or_create(pool=pool, minute=_floor(now), defaults=dict(values))


def _begin(now: datetime) -> datetime:
    last = DemandMinute.objects.aggregate(at=Max("minute"))["at"]
    if last is None:
        first = Job.objects.order_by("id").values_list("created_at", flat=True).first()
        return max(first, now - MAX_CATCH_UP) if first else now - WINDOW
    return max(min(last, now - WINDOW), now - MAX_CATCH_UP)


def _floor(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
