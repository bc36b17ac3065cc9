"""Demand told beforehand: a batch of so many jobs, or an event of the calendar. The sizing policies are shown it, so that workers are
ready; nothing is promised or reserved. Every announcement and every cancellation is audited."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from billing.models import Customer
from builds.models import Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, LimitExceeded, NotFound
from fleet import job_times, pools
from fleet.models import PlannedDemand, Pool

MOST_OPEN = 200
"""Announcements a pool is shown at once."""
MOST_JOBS = 10_000_000
LONGEST = timedelta(days=31)
FURTHEST = timedelta(days=400)
LATE = timedelta(minutes=5)
"""A start so little in the past is meant as now."""


def batch(
    *,
    pool: Pool,
    jobs: int,
    starts_at: datetime,
    ends_at: datetime | None = None,
    workflow: Workflow | None = None,
    customer: Customer | None = None,
    work_s: float | None = None,
    name: str = "",
    actor: str,
    now: datetime,
) -> PlannedDemand:
    """`jobs` jobs that arrive evenly from `starts_at` to `ends_at`, or all at once. Raises Invalid or LimitExceeded."""
    if type(jobs) is not int or not 1 <= jobs <= MOST_JOBS:
        raise Invalid("jobs_invalid", f"A batch has 1 to {MOST_JOBS:,} jobs.", "Announce a larger one in parts.", details={"field": "jobs"})
    if work_s is None:
        times = job_times.of_pool(pool, now=now)
        work_s = jobs * times.all.mean_s
    if not math.isfinite(work_s) or work_s < 0:
        raise Invalid("work_invalid", "The work of a batch is seconds, 0 or more.", "Leave it out to use what jobs took.", details={"field": "work_s"})
    return _make(
        now=now, actor=actor, kind=PlannedDemand.Kind.BATCH, pool=pool, workflow=workflow, customer=customer, name=name, starts_at=starts_at,
        ends_at=ends_at or starts_at, jobs=jobs, work_s=work_s,
    )  # fmt: skip


def event(*, pool: Pool, name: str, starts_at: datetime, ends_at: datetime, factor: float = 1.0, workers: int = 0, actor: str, now: datetime) -> PlannedDemand:
    """Demand is `factor` times the usual, or at least `workers` are wanted, between two moments. Raises Invalid or LimitExceeded."""
    if not math.isfinite(factor) or not 0.01 <= factor <= 100:
        raise Invalid("factor_invalid", "Demand is 0.01 to 100 times the usual.", "2 means twice as much.", details={"field": "factor"})
    if type(workers) is not int or not 0 <= workers <= pools.MOST_WORKERS:
        raise Invalid("workers_invalid", f"An event wants 0 to {pools.MOST_WORKERS:,} workers.", "0 leaves it to the factor.", details={"field": "workers"})
    if factor == 1 and not workers:
        raise Invalid("event_empty", "An event changes demand or asks for workers.", "Give a factor, or a number of workers.", details={"field": "factor"})
    if not name.strip():
        raise Invalid("name_missing", "An event has a name.", "Say what it is, for instance Black Friday.", details={"field": "name"})
    if ends_at <= starts_at:
        raise Invalid("ends_before", "The event ends before it starts.", "Correct one of the times.", details={"field": "ends_at"})
    return _make(
        now=now, actor=actor, kind=PlannedDemand.Kind.EVENT, pool=pool, name=name, starts_at=starts_at, ends_at=ends_at, factor=factor, workers=workers
    )


@transaction.atomic
def cancel(planned: PlannedDemand, *, actor: str, reason: str = "", now: datetime) -> PlannedDemand:
    """It is not shown any more. Raises Conflict when it was canceled or is over."""
    held = PlannedDemand.objects.select_for_update().select_related("pool").get(id=planned.id)
    if held.canceled_at is not None:
        raise Conflict("announcement_canceled", "This announcement was canceled before.", "Nothing needs to be done.")
    if held.ends_at < now and held.kind == PlannedDemand.Kind.EVENT:
        raise Conflict("announcement_over", "This announcement is over.", "Nothing needs to be done.")
    held.canceled_at = now
    held.save(update_fields=["canceled_at"])
    audit.record(
        actor=actor, action="demand.cancel", object_type="planned_demand", object_id=held.id, before=_told(held), reason=reason, now=now
    )  # fmt: skip
    return held


def find(planned_id: UUID) -> PlannedDemand:
    """One announcement; raises NotFound."""
    found = PlannedDemand.objects.select_related("pool", "workflow", "customer").filter(id=planned_id).first()
    if found is None:
        raise NotFound("announcement_not_found", "There is no such announcement.", "List them to see their ids.")
    return found


def open_ones(*, pool: Pool | None = None, now: datetime) -> QuerySet[PlannedDemand]:
    """What is announced and not over, the next first."""
    found = PlannedDemand.objects.filter(canceled_at__isnull=True, ends_at__gte=now).select_related("pool", "workflow", "customer").order_by("starts_at", "id")
    return found if pool is None else found.filter(pool=pool)


def _make(*, now: datetime, actor: str, **values: object) -> PlannedDemand:
    made = PlannedDemand(created_at=now, created_by=actor[:120], **values)
    made.name = made.name.strip()[:120]
    if now - LATE <= made.starts_at < now:
        made.starts_at = now
        made.ends_at = max(made.ends_at, now)
    if made.starts_at < now or made.starts_at > now + FURTHEST:
        raise Invalid(
            "starts_at_invalid", f"An announcement starts between now and {FURTHEST.days} days from now.", "Correct the time.", details={"field": "starts_at"}
        )
    if made.ends_at < made.starts_at or made.ends_at > made.starts_at + LONGEST:
        raise Invalid("ends_at_invalid", f"It ends after it starts, within {LONGEST.days} days.", "Correct the time.", details={"field": "ends_at"})
    with transaction.atomic():
        Pool.objects.select_for_update().get(id=made.pool_id)
        if open_ones(pool=made.pool, now=now).count() >= MOST_OPEN:
            raise LimitExceeded("announcements_full", f"{MOST_OPEN} announcements are open for {made.pool.slug}, the most it is shown.", "Cancel one first.")
        made.save(force_insert=True)
        audit.record(actor=actor, action="demand.announce", object_type="planned_demand", object_id=made.id, after=_told(made), now=now)
    return made


def _told(planned: PlannedDemand) -> dict[str, object]:
    """An announcement as the audit log keeps it."""
    told: dict[str, object] = {"kind": planned.kind, "pool": planned.pool.slug, "starts_at": planned.starts_at, "ends_at": planned.ends_at}
    if planned.kind == PlannedDemand.Kind.BATCH:
        return told | {"jobs": planned.jobs, "work_s": round(planned.work_s, 3)}
    return told | {"name": planned.name, "factor": planned.factor, "workers": planned.workers}


def as_json(planned: PlannedDemand) -> dict[str, object]:
    """An announcement for scripts."""
    return {
        "id": str(planned.id),
        "kind": planned.kind,
        "pool": planned.pool.slug,
        "workflow": planned.workflow.slug if planned.workflow else None,
        "customer": planned.customer.slug if planned.customer else None,
        "name": planned.name,
        "starts_at": planned.starts_at.isoformat(),
        "ends_at": planned.ends_at.isoformat(),
        "jobs": planned.jobs,
        "work_s": round(planned.work_s, 3),
        "factor": planned.factor,
        "workers": planned.workers,
        "created_by": planned.created_by,
        "canceled_at": planned.canceled_at.isoformat() if planned.canceled_at else None,
    }
