"""Housekeeping by django-q2: long or daily work, never dispatch or loops.

A task may run twice or beside itself, so each only reads, or deletes what a rule names. Schedules are rows; `ensure`
makes them again at every start, so a changed one takes effect.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.sessions.models import Session
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django_q.models import Failure, Schedule, Success
from django_q.tasks import async_task

from controlplane.kernel import blobs
from controlplane.kernel.models import OutboxEntry
from fleet import forecasts, smoke_images, worker_days
from fleet.models import CapacityMinute, DemandMinute, Pool, Quote, ScalingDecision, SmokeRun, Worker
from fleet.reconcile import drift

log = logging.getLogger(__name__)

KEEP = timedelta(days=30)
KEEP_SUCCESSES = timedelta(days=7)
KEEP_SMOKE = timedelta(days=90)
KEEP_CAPACITY = timedelta(days=60)
KEEP_HOURS = timedelta(days=400)  # worker-hours one by one; the pool's days stay
KEEP_DEMAND = timedelta(days=400)  # a year and a month: the seasons of a forecast
SCHEDULES: dict[str, dict[str, Any]] = {
    "reconcile": {"func": "fleet.tasks.reconcile", "schedule_type": Schedule.HOURLY},
    "prune": {"func": "fleet.tasks.prune", "schedule_type": Schedule.DAILY},
    "savings": {"func": "fleet.tasks.work_out_savings", "schedule_type": Schedule.HOURLY},
    "forecast": {"func": "fleet.tasks.forecast", "schedule_type": Schedule.HOURLY},
}


def ensure_schedules(*, now: datetime) -> None:
    """Make the schedules that are missing and set right those that differ. Their next time is kept."""
    for name, terms in SCHEDULES.items():
        Schedule.objects.update_or_create(name=name, defaults={**terms, "repeats": -1}, create_defaults={**terms, "name": name, "repeats": -1, "next_run": now})


def reconcile() -> int:
    """The drift between jobs, ledger and accounts, which must be 0; logged as an error when it is not."""
    found = drift(now=timezone.now())
    if found.total:
        log.error("books do not agree; run manage.py reconcile", extra={"drift": found.total})
    return found.total


def work_out_savings() -> int:
    """The savings of finished days that are missing; nothing to do in most hours."""
    from fleet import savings  # brings numpy, when it simulates

    return savings.catch_up(now=timezone.now())


def forecast() -> dict[str, str]:
    """This hour's forecast of every pool: its method, or why there is none. One pool's trouble does not keep the others from theirs."""
    done: dict[str, str] = {}
    for pool in Pool.objects.order_by("slug"):
        try:
            done[pool.slug] = forecasts.refresh(pool, now=timezone.now()).method
        except Exception as error:
            log.exception("pool could not be forecast", extra={"pool": pool.slug})
            done[pool.slug] = f"failed: {type(error).__name__}"
    return done


def prune() -> dict[str, int]:
    """Delete what nobody will ask for again; says how many of each."""
    return sweep(now=timezone.now())


def sweep(*, now: datetime) -> dict[str, int]:
    """`prune` at a given time."""
    old = now - KEEP
    return {
        "sessions": Session.objects.filter(expire_date__lt=now).delete()[0],
        "outbox": OutboxEntry.objects.filter(state=OutboxEntry.State.DONE, ended_at__lt=old).delete()[0],
        "worker_hours": worker_days.fold(before=now - KEEP_HOURS),
        "workers": _idle_ends(old).delete()[0],
        "holds": ScalingDecision.objects.filter(action="hold", last_seen_at__lt=old).delete()[0],
        "capacity_minutes": CapacityMinute.objects.filter(minute__lt=now - KEEP_CAPACITY).delete()[0],
        "demand_minutes": DemandMinute.objects.filter(minute__lt=now - KEEP_DEMAND).delete()[0],
        "quotes": Quote.objects.filter(expires_at__lt=old, planned__isnull=True).delete()[0],
        "smoke_runs": _old_smoke_runs(now - KEEP_SMOKE).delete()[0],
        "task_results": Success.objects.filter(stopped__lt=now - KEEP_SUCCESSES).delete()[0] + Failure.objects.filter(stopped__lt=old).delete()[0],
        "incoming_files": blobs.sweep(now=now),
    }


def _idle_ends(before: datetime) -> QuerySet[Worker]:
    """Workers that ended then without a job or a cost: what an hour of one cost stays in the books, and goes with its row."""
    return Worker.objects.filter(state__in=["stopped", "lost"], stopped_at__lt=before, attempts__isnull=True, jobs__isnull=True, hours__isnull=True)


def _old_smoke_runs(before: datetime) -> QuerySet[SmokeRun]:
    """Ended runs with a later one of the same version and image: the last result stays, however old."""
    later = SmokeRun.objects.filter(version=OuterRef("version"), build__isnull=True, requested_at__gt=OuterRef("requested_at"), finished_at__isnull=False)
    return SmokeRun.objects.filter(Exists(later), build__isnull=True, finished_at__lt=before)


def run_smoke_later(run_id: UUID) -> None:
    """Let a task process try an image."""
    async_task("fleet.tasks.run_smoke", str(run_id), timeout=int(smoke_images.LONGEST_S) + 60)


def run_smoke(run_id: str) -> str:
    """A smoke run on its image, start to end; a second time changes nothing."""
    return smoke_images.run(UUID(run_id), clock=timezone.now)
