"""A pool as it stands, for playing it forward: who works on what and how long yet, what waits before a customer's jobs, what others send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, Sum
from django.db.models.functions import TruncHour

from builds.models import Version
from fleet import floors, history, providers
from fleet.models import DemandMinute, Job, PlannedDemand, Pool, Worker
from fleet.planning.finishing import Present
from fleet.planning.replay import terms_of
from fleet.sizing.seen import ColdStart, JobTime, Planned

DAYS_BACK = 7
HOURS_AHEAD = 48
FAR_S = 3600.0
"""A batch that starts later than this does not meet the pool as it stands now."""
VERSION_RUNS = 500


def of_pool(pool: Pool, *, customer_id: UUID | None, rank: int, jobs: int, starts_in_s: float, now: datetime) -> tuple[Present, list[str]]:
    """What `jobs` jobs of the customer, of priority `rank`, would meet; and what is to be said of it.

    A batch in an hour or less meets the pool as it is. A later one meets it in its usual state of that hour, an hour before the batch.
    """
    notes: list[str] = []
    terms = terms_of(pool)
    measured = [s for of in history.samples(pool).values() for s in of]
    cold = history.cold_starts(pool, now=now)
    far = starts_in_s > FAR_S
    start = now + timedelta(seconds=starts_in_s - FAR_S) if far else now
    rates = usual(pool, start=start, now=now, at_present=not far)
    workers = list(Worker.objects.filter(pool=pool, state__in=Worker.LIVE).only("id", "state", "ordered_at", "cordoned_at", "preempt_at"))
    ready = [w for w in workers if w.state in Worker.READY and w.cordoned_at is None and w.preempt_at is None]
    coming = [w for w in workers if w.state in Worker.COMING]
    if pool.halted_at is not None:
        notes.append("No further workers are started at the moment, so only those that run are counted on.")
        terms = replace(terms, base=0, maximum=len(ready))
    elif not providers.of(pool).orders:
        terms = replace(terms, base=0, maximum=max(len(ready) + len(coming), 0))
    elif not far:
        bounds = floors.of(pool, now=now)
        terms = replace(terms, base=bounds.base, maximum=bounds.maximum)
    if not cold:
        notes.append("No start of a worker has been measured yet; it counts as 60 s.")
    running = list(Job.objects.filter(pool=pool, status=Job.Status.RUNNING).order_by().values_list("customer_id", "worker_id", "started_at")[:2000])
    others, ahead = _ahead(pool, customer_id, rank, jobs, {who for who, _, _ in running})
    job, start_s = _job_time(measured), _cold(cold)
    here = {w.id for w in ready}
    present = Present(
        terms=terms,
        ready=len(ready),
        busy_left_s=tuple(_rest(measured or [job.mean_s], (now - at).total_seconds()) for _, worker, at in running if at is not None and worker in here),
        boots_left_s=tuple(_rest(cold or (60.0,), (now - w.ordered_at).total_seconds()) for w in coming),
        ahead=ahead,
        rates=rates,
        others=max(1, others),
        seconds=measured,
        cold_s=cold or (60.0,),
        job=job,
        cold=start_s,
        planned=announced(pool, start=start),
        memory=dict(pool.memory.get(pool.policy) or {}),
    )
    if far:
        notes.append("The start is far off: the pool is taken in its usual state at that hour.")
        usual_workers = max(terms.base, min(terms.maximum, round(rates[0] * job.mean_s)))
        present = replace(present, ready=usual_workers, busy_left_s=(), boots_left_s=(), ahead=0, memory={})
    return present, notes


def usual(pool: Pool, *, start: datetime, now: datetime, at_present: bool) -> tuple[float, ...]:
    """Jobs a second, hour by hour from `start`: as at that hour on the days before; the first as in the last hour, when `at_present`."""
    since = now - timedelta(days=DAYS_BACK)
    rows = (
        DemandMinute.objects.filter(pool=pool, minute__gte=since, minute__lt=now)
        .order_by()
        .annotate(hour=TruncHour("minute"))
        .values_list("hour")
        .annotate(n=Sum("arrivals"))
    )
    by_hour: dict[datetime, int] = dict(rows)
    last = sum(DemandMinute.objects.filter(pool=pool, minute__gte=now - timedelta(hours=1), minute__lt=now).values_list("arrivals", flat=True)) / 3600
    first = min(by_hour, default=now)
    begin = start.replace(minute=0, second=0, microsecond=0)
    found: list[float] = []
    for ahead in range(HOURS_AHEAD):
        hour = begin + timedelta(hours=ahead)
        days = [hour - timedelta(days=back) for back in range(1, DAYS_BACK + 40)]
        days = [day for day in days if since <= day and first <= day and day + timedelta(hours=1) <= now]
        found.append(sum(by_hour.get(day, 0) for day in days) / len(days) / 3600 if days else last)
    if at_present:
        found[0] = last
    return tuple(found)


def announced(pool: Pool, *, start: datetime) -> tuple[Planned, ...]:
    """What is announced from `start` on, its times counted from there."""
    rows = PlannedDemand.objects.filter(pool=pool, canceled_at__isnull=True, ends_at__gt=start)[:200]
    return tuple(Planned((r.starts_at - start).total_seconds(), (r.ends_at - start).total_seconds(), r.jobs, r.work_s, r.factor, r.workers) for r in rows)


def of_version(version: Version) -> tuple[list[float], list[float]]:
    """Seconds that its last runs occupied a worker, and the seconds of them that were charged."""
    rows = Job.objects.filter(workflow_id=version.workflow_id, version=version, status="succeeded", copied_from__isnull=True).order_by("-id")
    took: list[float] = []
    charged: list[float] = []
    for began, ended, billable in rows.values_list("started_at", "finished_at", "billable_s")[:VERSION_RUNS]:
        if began is not None and ended is not None:
            took.append(max(0.001, (ended - began).total_seconds()))
            charged.append(max(0.0, billable))
    return took, charged


def _ahead(pool: Pool, customer_id: UUID | None, rank: int, jobs: int, running: set[UUID]) -> tuple[int, int]:
    """How many other customers wait or run here, and how many waiting jobs go before: turns are taken, so of each other at most as many as ours."""
    rows = list(Job.objects.filter(pool=pool, status=Job.Status.QUEUED).order_by().values_list("customer_id", "priority").annotate(n=Count("id")))
    others = {who for who, _, _ in rows} | running
    others.discard(customer_id)  # type: ignore[arg-type]
    ahead = sum(n if priority < rank or who == customer_id else min(n, jobs) for who, priority, n in rows if priority <= rank)
    return len(others), ahead


def _job_time(seconds: Sequence[float]) -> JobTime:
    if not seconds:
        return JobTime()
    mean = sum(seconds) / len(seconds)
    return JobTime(mean, sum((s - mean) ** 2 for s in seconds) / len(seconds) / mean**2, len(seconds))


def _cold(seconds: Sequence[float]) -> ColdStart:
    ordered = sorted(seconds)
    return ColdStart(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))], len(ordered)) if ordered else ColdStart()


def _rest(seconds: Sequence[float], gone: float) -> float:
    """How much longer something takes that has taken `gone`, by how long such things took."""
    longer = [s - gone for s in seconds if s > gone]
    return sum(longer) / len(longer) if longer else max(1.0, 0.25 * sum(seconds) / len(seconds))
