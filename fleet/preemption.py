"""A worker its provider is about to take away: no new job, what it runs finishes if it can, else goes back to its place at once.

The scaler no longer counts such a worker, so another is ordered at its next step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from fleet import estimates, leaving, queue
from fleet.models import Job, Pool, PoolOffer, Worker, WorkerChange
from fleet.providers.base import Provider

log = logging.getLogger(__name__)

PROVIDER = "provider"
"""Who is named in the audit trail for what a provider's notice brings about."""
MARGIN = timedelta(seconds=2)
"""A job that would end closer than this to the end of its worker goes back: its outputs must be stored by then."""
CLOSER = timedelta(seconds=5)
"""A new notice counts when it is earlier than the last by this: providers tell the seconds left again and again."""


def notice(worker: Worker, *, at: datetime, why: str = "", now: datetime) -> bool:
    """Its provider takes `worker` away at `at`. True when this was news; told again, nothing changes but an end that has come closer."""
    with transaction.atomic():
        live = Worker.objects.filter(id=worker.id, state__in=Worker.LIVE)
        fresh = live.filter(preempt_at__isnull=True).update(preempt_at=at)
        closer = 0 if fresh else live.filter(preempt_at__gt=at + CLOSER).update(preempt_at=at)
        if not fresh and not closer:
            return False
        worker.preempt_at = at
        if fresh:
            if not WorkerChange.objects.filter(worker=worker, kind=WorkerChange.Kind.NOTICE).exists():
                interrupted(worker)
            WorkerChange.objects.create(worker=worker, at=now, kind=WorkerChange.Kind.NOTICE, note=(why or "Its provider gave notice.")[:500])
        taken = take_back(worker, now=now)
    log.warning("worker will be taken away", extra={"worker": worker.name, "in_s": round((at - now).total_seconds(), 1), "jobs_taken_back": taken})
    return True


def interrupted(worker: Worker) -> None:
    """Count an interruption of its kind of machine, once a worker."""
    if worker.offer_id is not None:
        PoolOffer.objects.filter(id=worker.offer_id).update(interruptions=F("interruptions") + 1)


def look_after(pool: Pool, *, provider: Provider, fence: Callable[[], None], now: datetime) -> list[str]:
    """Take back what workers with notice will not finish in time, and let those with nothing left to do go; says what was done."""
    said: list[str] = []
    for worker in Worker.objects.filter(pool=pool, preempt_at__isnull=False, drain_asked_at__isnull=True, state__in=Worker.LIVE):
        if taken := take_back(worker, now=now):
            said.append(f"{worker.name}: {taken} taken back before it is taken away")
        if not Job.objects.filter(worker=worker, status=Job.Status.RUNNING).exists():
            reason = "Its provider takes it away, and it has nothing left to do."
            said.append(leaving.let_go(worker, pool, provider, actor=PROVIDER, reason=reason, fence=fence, now=now))
    return said


def take_back(worker: Worker, *, now: datetime) -> int:
    """Put back the jobs of a worker with notice that would end too late; returns how many."""
    if worker.preempt_at is None:
        return 0
    left_s = (worker.preempt_at - MARGIN - now).total_seconds()
    running = Job.objects.filter(worker=worker, status=Job.Status.RUNNING).only("id", "version_id", "started_at", "progress")
    late = [job.id for job in running if remaining_s(job, now=now) > left_s]
    return queue.take_back(worker, late, now=now)


def remaining_s(job: Job, *, now: datetime) -> float:
    """Seconds a running job may still take: nine in ten of its version take no longer. One beyond that is judged by its progress."""
    expected = estimates.of_version(job.version_id, now=now).p90_s
    gone = max(0.0, (now - job.started_at).total_seconds()) if job.started_at else 0.0
    if gone < expected:
        return expected - gone
    return gone * (1 - job.progress) / max(job.progress, 0.05)
