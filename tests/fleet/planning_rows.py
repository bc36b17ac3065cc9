"""Rows for the tests of planning: a pool with a past."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from controlplane.kernel.ids import first_uuid7
from fleet import job_times
from fleet.models import Attempt, DemandMinute, Job, Worker
from tests import factories


def pool_with_past(*, now: datetime, jobs=40, every_s=60.0, took_s=30.0, slug="", **terms):
    """A pool that ran `jobs` jobs, one each `every_s` up to now; returns (pool, workflow, customer)."""
    job_times.forget()
    values = {"base": 1, "max": 4, "price_per_hour_microusd": 3_600_000, "forecast_floor": False} | terms
    pool = factories.make_pool(now=now - timedelta(days=3), slug=slug, **values)
    workflow = factories.make_runnable(now=now - timedelta(days=3), pool=pool)
    customer = factories.make_customer(now=now - timedelta(days=3))
    worker = factories.make_worker(pool, now=now - timedelta(days=2))
    Worker.objects.filter(id=worker.id).update(ordered_at=now - timedelta(days=2, seconds=45))
    for i in range(jobs):
        ran(customer, workflow, worker, at=now - timedelta(seconds=every_s * (jobs - i)), took_s=took_s)
    return pool, workflow, customer


def ran(customer, workflow, worker, *, at: datetime, took_s: float):
    """A job that came at `at` and occupied the worker at once."""
    fresh, end = waits(customer, workflow, at=at), at + timedelta(seconds=took_s)
    Job.objects.filter(id=fresh).update(
        status="succeeded", attempt=1, started_at=at, finished_at=end, worker=worker, price_microusd=1, cost_microusd=1, billable_s=took_s
    )
    Attempt.objects.create(
        job_id=fresh,
        number=1,
        worker=worker,
        state="succeeded",
        claimed_at=at,
        ended_at=end,
        busy_s=took_s,
        cost_microusd=1,
        timings={"run_s": took_s, "busy_s": took_s},
    )
    return fresh


def waits(customer, workflow, *, at: datetime):
    """A queued job whose id says that it came at `at`."""
    job = factories.submit(customer, workflow, now=at)
    fresh = UUID(int=first_uuid7(at).int + Job.objects.count())
    Job.objects.filter(id=job.id).update(id=fresh)
    return fresh


def minutes(pool, workflow, *, start: datetime, counts, mean_s=10.0):
    """Demand by the minute, without a job behind it."""
    DemandMinute.objects.bulk_create(
        DemandMinute(pool=pool, workflow=workflow, minute=start + timedelta(minutes=i), arrivals=n, work_s=n * mean_s) for i, n in enumerate(counts) if n
    )
