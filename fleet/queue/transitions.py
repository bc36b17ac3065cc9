"""The job's states and the two writes that change them: back into the queue, or to an end.

Callers hold the job's row lock. `finish` is the only code that makes a job terminal: status, ledger lines,
released reservation and webhook go down in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import F

from billing import ledger, quotas
from billing.pricing import Terms, settle
from controlplane.kernel import outbox
from fleet import fairness, wake
from fleet.models import Job

ALLOWED: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "canceled", "expired"}),
    "running": frozenset({"succeeded", "failed", "canceled", "expired", "queued"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "canceled": frozenset(),
    "expired": frozenset(),
}


class IllegalTransition(RuntimeError):
    """Code tried to move a job along an edge that is not in ALLOWED."""


def check(before: str, after: str) -> None:
    """Raise IllegalTransition unless `before` → `after` is allowed."""
    if after not in ALLOWED[before]:
        raise IllegalTransition(f"a job cannot go from {before} to {after}")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends."""

    status: str
    failure_class: str = ""
    error: dict[str, Any] | None = None
    billable_s: float = 0.0
    cost_microusd: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def finish(job: Job, ending: Ending, *, now: datetime) -> None:
    """Make a locked job terminal. `job` needs workflow and version and plan_revision at hand (select_related)."""
    check(job.status, ending.status)
    terms = Terms(job.plan_revision.price_per_job_microusd, job.plan_revision.price_per_gpu_second_microusd)
    lines = settle(
        terms, outcome=ending.status, failure_class=ending.failure_class, gpu_seconds=ending.billable_s, quote_microusd=job.quote_microusd
    )
    price = ledger.post(
        [
            ledger.Posting(
                job_id=job.id,
                customer_id=job.customer_id,
                plan_revision_id=job.plan_revision_id,
                workflow_slug=job.workflow.slug,
                version_number=job.version.number,
                outcome=ending.status,
                failure_class=ending.failure_class,
                lines=lines,
            )
        ],
        now=now,
    )
    quotas.release(customer_id=job.customer_id, amount_microusd=job.quote_microusd, price_microusd=price, now=now)
    changed: dict[str, Any] = {
        "status": ending.status,
        "finished_at": now,
        "lease_until": None,
        "node": "",
        "failure_class": ending.failure_class,
        "error": ending.error,
        "price_microusd": price,
        "billable_s": ending.billable_s,
        "cost_microusd": job.cost_microusd + ending.cost_microusd,
        **({"progress": 1.0} if ending.status == "succeeded" else {}),
        **ending.extra,
    }
    Job.objects.filter(id=job.id).update(revision=F("revision") + 1, **changed)
    for name, value in changed.items():
        setattr(job, name, value)
    job.revision += 1
    if job.webhook_url:
        outbox.put(topic="webhook", key=f"{job.id}:{ending.status}", payload={"job": str(job.id), "url": job.webhook_url, "type": f"job.{ending.status}"}, now=now)
    wake.job(job.id)


def requeue(job: Job, *, cost_microusd: int, now: datetime) -> None:
    """Put a locked running job back in front of its class, for another worker."""
    check(job.status, "queued")
    job.status, job.fair_tag, job.queued_at, job.lease_until, job.worker = "queued", fairness.FRONT, now, None, None
    job.cost_microusd += cost_microusd
    job.node = ""
    job.progress = 0.0
    Job.objects.filter(id=job.id).update(
        status="queued",
        fair_tag=fairness.FRONT,
        queued_at=now,
        lease_until=None,
        worker=None,
        node="",
        progress=0.0,
        cost_microusd=job.cost_microusd,
        revision=F("revision") + 1,
    )
    wake.pool(job.pool_id)
    wake.job(job.id)
