"""Old worker-hours, folded: a row a pool and day in place of a row a worker and hour. What was billed stays to the micro-dollar."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from django.db import transaction
from django.db.models import Max, Sum

from fleet.buckets import BUCKETS, Split
from fleet.models import Pool, PoolDay, WorkerHour

DAY = timedelta(days=1)
MOST_DAYS = 60
"""Days a call folds at most; the next one goes on."""
FIELDS = [f"{bucket}_{unit}" for unit in ("ms", "microusd") for bucket in ("total", *BUCKETS)]


def fold(*, before: datetime, most: int = MOST_DAYS) -> int:
    """Fold whole days (UTC) that ended by then, the oldest first, each in a transaction of its own; returns how many rows went."""
    end = midnight(before)
    gone = 0
    for _ in range(most):
        oldest = WorkerHour.objects.filter(hour__lt=end).order_by("hour").values_list("hour", flat=True).first()
        if oldest is None:
            break
        gone += _fold_day(midnight(oldest))
    return gone


def folded_until() -> datetime | None:
    """The moment before which nothing is kept by the hour; None when nothing was folded."""
    last = PoolDay.objects.aggregate(at=Max("day"))["at"]
    return None if last is None else datetime.combine(last, time(), UTC) + DAY


def total(pool: Pool | None, *, first: datetime, last: datetime) -> Split:
    """The folded days from `first` until `last`, both midnights."""
    rows = PoolDay.objects.filter(day__gte=first.date(), day__lt=last.date())
    sums = (rows if pool is None else rows.filter(pool=pool)).aggregate(**{name: Sum(name) for name in FIELDS})
    return Split({b: sums[f"{b}_ms"] or 0 for b in BUCKETS}, {b: sums[f"{b}_microusd"] or 0 for b in BUCKETS})


def midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@transaction.atomic
def _fold_day(start: datetime) -> int:
    hours = WorkerHour.objects.filter(hour__gte=start, hour__lt=start + DAY)
    sums: dict[int, dict[str, int]] = {}
    seen: dict[int, set[object]] = {}
    ids: list[int] = []
    for row in hours.select_for_update().order_by("id"):
        held = sums.setdefault(row.pool_id, dict.fromkeys(FIELDS, 0))
        for name in FIELDS:
            held[name] += getattr(row, name)
        seen.setdefault(row.pool_id, set()).add(row.worker_id)
        ids.append(row.id)
    for pool_id, held in sums.items():
        day, made = PoolDay.objects.select_for_update().get_or_create(pool_id=pool_id, day=start.date(), defaults={**held, "workers": len(seen[pool_id])})
        if not made:  # hours that were written after the day was folded
            for name in FIELDS:
                setattr(day, name, getattr(day, name) + held[name])
            day.save(update_fields=FIELDS)
    for at in range(0, len(ids), 1000):  # those that were added up, and no other
        WorkerHour.objects.filter(id__in=ids[at : at + 1000]).delete()
    return len(ids)
