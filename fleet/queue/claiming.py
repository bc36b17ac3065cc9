"""Hand queued jobs to a worker, with a lease and an attempt number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from controlplane.kernel.errors import Conflict
from fleet import placement
from fleet.models import Attempt, Job, Worker
from fleet.queue.transitions import check

check("queued", "running")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job as leased to a worker."""

    job: Job
    attempt: int
    lease_until: datetime


@transaction.atomic
def claim(worker: Worker, *, limit: int = 1, warm: Collection[str] = (), now: datetime) -> list[Assignment]:
    """Lease up to `limit` jobs of the worker's pool, most urgent first. Empty when there are none or the worker drains."""
    if worker.state in (Worker.State.STOPPED, Worker.State.LOST):
        raise Conflict("worker_retired", "This worker was retired.", "Register again as a new worker.")
    if worker.state == Worker.State.DRAINING or worker.drain_asked_at is not None:
        return []
    chosen = _pick(worker.pool_id, limit=limit, warm=warm, now=now)
    if not chosen:
        return []
    lease_until = now + timedelta(seconds=settings.WORKER["LEASE_S"])
    Job.objects.filter(id__in=chosen).update(
        status="running",
        attempt=F("attempt") + 1,
        worker=worker,
        lease_until=lease_until,
        started_at=now,
        progress=0.0,
        revision=F("revision") + 1,
    )
    jobs = {job.id: job for job in Job.objects.filter(id__in=chosen)}
    ordered = [jobs[id_] for id_ in chosen]
    Attempt.objects.bulk_create([Attempt(job=job, number=job.attempt, worker=worker, claimed_at=now) for job in ordered])
    Worker.objects.filter(id=worker.id).exclude(state__in=[Worker.State.STOPPED, Worker.State.LOST, Worker.State.DRAINING]).update(
        state=Worker.State.BUSY, state_since=now, seen_at=now, idle_since=None
    )
    return [Assignment(job=job, attempt=job.attempt, lease_until=lease_until) for job in ordered]


def ready(worker: Worker) -> bool:
    """Whether a claim could give this worker anything: a cheap look without a transaction."""
    return worker.drain_asked_at is None and Job.objects.filter(pool_id=worker.pool_id, status="queued").exists()


def _pick(pool_id: int, *, limit: int, warm: Collection[str], now: datetime) -> list[UUID]:
    """Ids to lease, their rows locked on PostgreSQL; SQLite's immediate transaction is the lock there."""
    ready = Job.objects.filter(pool_id=pool_id, status="queued").order_by("priority", "fair_tag", "id")
    locking = connection.vendor == "postgresql"
    if not warm:
        head = ready.select_for_update(skip_locked=True) if locking else ready
        return list(head.values_list("id", flat=True)[:limit])
    seen = [placement.Candidate(*row) for row in ready.values_list("id", "priority", "warm_key", "queued_at")[: max(limit, placement.LOOK_AHEAD)]]
    wanted = placement.choose(seen, warm=warm, limit=limit, now=now)
    if not locking or not wanted:
        return wanted
    held = set(Job.objects.filter(id__in=wanted, status="queued").select_for_update(skip_locked=True).values_list("id", flat=True))
    if not held:  # others took them all: fall back to whatever is free
        return list(ready.select_for_update(skip_locked=True).values_list("id", flat=True)[:limit])
    return [id_ for id_ in wanted if id_ in held]
