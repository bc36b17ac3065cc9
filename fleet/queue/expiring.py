"""Leases that ran out, deadlines that passed, workers that went away."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import F, QuerySet

from fleet import costs
from fleet.models import Attempt, Job, Worker
from fleet.queue.completing import EXPIRED, after_failure
from fleet.queue.transitions import Ending, finish

LOST = {"code": "worker_lost", "message": "The worker running this job went silent.", "suggestion": "It was tried as often as allowed; send it again."}


def expire_leases(*, now: datetime, limit: int = 100) -> int:
    """Requeue (or end) jobs whose lease ran out; returns how many."""
    return _lose(Job.objects.filter(status="running", lease_until__lt=now).order_by("lease_until"), error=LOST, now=now, limit=limit)


def requeue_worker(worker: Worker, *, now: datetime) -> int:
    """Take back at once every job of a worker that left."""
    return _lose(Job.objects.filter(status="running", worker=worker).order_by("id"), error=LOST, now=now, limit=1000)


@transaction.atomic
def expire_deadlines(*, now: datetime, limit: int = 100) -> int:
    """End queued jobs past their deadline, and ask running ones to stop; returns how many were touched."""
    late = _locked(Job.objects.filter(status="queued", deadline_at__lte=now).order_by("deadline_at"), limit)
    for job in late:
        finish(job, Ending("expired", failure_class="capacity", error=EXPIRED), now=now)
    asked = Job.objects.filter(status="running", deadline_at__lte=now, cancel_asked_at__isnull=True).update(cancel_asked_at=now, revision=F("revision") + 1)
    return len(late) + asked


@transaction.atomic
def _lose(jobs: QuerySet[Job], *, error: dict[str, Any], now: datetime, limit: int) -> int:
    held = _locked(jobs, limit)
    for job in held:
        busy_s = max(0.0, (now - job.started_at).total_seconds()) if job.started_at else 0.0
        cost = costs.of_seconds(job.pool.price_per_hour_microusd, busy_s)
        Attempt.objects.filter(job=job, number=job.attempt, state="running").update(
            state="lost", ended_at=now, failure_class="platform", error=error, busy_s=busy_s, cost_microusd=cost
        )
        after_failure(job, failure_class="platform", error=error, busy_s=0.0, cost_microusd=cost, now=now)
    return len(held)


def _locked(jobs: QuerySet[Job], limit: int) -> list[Job]:
    joined = jobs.select_related("workflow", "version", "plan_revision", "pool")
    if connection.vendor == "postgresql":
        joined = joined.select_for_update(of=("self",), skip_locked=True)
    return list(joined[:limit])
