"""A pool's demand hour by hour, as its minutes were written down: what forecasts are made from and measured against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Count, Min, Sum
from django.db.models.functions import TruncHour

from fleet.models import CapacityMinute, DemandMinute, Pool

if TYPE_CHECKING:
    from fleet.forecasting.series import Series

STEP_S = 3600
LONGEST = timedelta(days=60)
BUSIEST = 5
"""Workflows of a pool that get a forecast of their own."""
ENOUGH_JOBS = 200
LATELY = timedelta(days=14)
WORK_OF = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Hours:
    """Jobs an hour from the first hour with any demand to the last whole one, and the seconds of one worker that a job takes lately."""

    series: Series
    job_s: float


def hour_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def of(pool: Pool, *, workflow_id: UUID | None = None, now: datetime) -> Hours:
    """The last 60 days. An hour without demand is zero; one in which nobody sized the pool either (we were down) is unknown."""
    import numpy as np

    from fleet.forecasting import series

    end = hour_of(now)
    rows = DemandMinute.objects.filter(pool=pool, minute__gte=end - LONGEST, minute__lt=end)
    if workflow_id is not None:
        rows = rows.filter(workflow_id=workflow_id)
    found = list(rows.annotate(hour=TruncHour("minute", tzinfo=UTC)).order_by().values("hour").annotate(jobs=Sum("arrivals"), work=Sum("work_s")))
    if not found:
        return Hours(series.of([], step_s=STEP_S), 0.0)
    start = min(row["hour"] for row in found)
    values = np.zeros(round((end - start).total_seconds() / STEP_S))
    for gap in _down(pool, start=start, end=end):
        values[gap] = np.nan
    for row in found:
        values[round((row["hour"] - start).total_seconds() / STEP_S)] = row["jobs"]
    late = [row for row in found if row["hour"] >= end - WORK_OF] or found
    jobs = sum(row["jobs"] for row in late)
    # made by hand, so that an hour without demand at either end stays
    return Hours(series.Series(values, float(STEP_S), start.timestamp() + MONDAY_S), sum(row["work"] for row in late) / jobs if jobs else 0.0)


MONDAY_S = 3 * 86_400.0
"""The epoch was a Thursday; only the rhythm of seven days matters."""


def jobs_by_hour(pool: Pool, *, start: datetime, end: datetime) -> dict[datetime, int]:
    """Jobs of every hour that had any."""
    rows = DemandMinute.objects.filter(pool=pool, minute__gte=start, minute__lt=end)
    return dict(rows.annotate(hour=TruncHour("minute", tzinfo=UTC)).order_by().values_list("hour").annotate(jobs=Sum("arrivals")))


def busiest(pool: Pool, *, now: datetime) -> list[UUID]:
    """The workflows with traffic enough for a forecast of their own; none when one workflow is nearly all of it."""
    rows = DemandMinute.objects.filter(pool=pool, minute__gte=now - LATELY, minute__lt=now).order_by().values_list("workflow_id").annotate(jobs=Sum("arrivals"))
    found = sorted(((jobs, workflow) for workflow, jobs in rows), key=lambda one: (-one[0], str(one[1])))
    if not found or found[0][0] >= 0.97 * sum(jobs for jobs, _ in found):
        return []
    return [workflow for jobs, workflow in found if jobs >= ENOUGH_JOBS][:BUSIEST]


def _down(pool: Pool, *, start: datetime, end: datetime) -> list[int]:
    """Hours, counted from `start`, in which the pool was not looked at once, though it had been before."""
    first = CapacityMinute.objects.filter(pool=pool).aggregate(at=Min("minute"))["at"]
    if first is None or first >= end:
        return []
    since = max(start, hour_of(first))
    rows = CapacityMinute.objects.filter(pool=pool, minute__gte=since, minute__lt=end)
    seen = set(rows.annotate(hour=TruncHour("minute", tzinfo=UTC)).order_by().values_list("hour", flat=True).annotate(n=Count("id")))
    hours = round((end - since).total_seconds() / STEP_S)
    offset = round((since - start).total_seconds() / STEP_S)
    return [offset + i for i in range(hours) if since + timedelta(hours=i) not in seen]
