"""A job whose row lock this transaction holds, with the terms it was admitted under: what ending it needs, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from controlplane.kernel import sql

_COLUMNS = """
SELECT j.id, j.status, j.attempt, j.max_attempts, j.worker_id, j.customer_id, j.plan_revision_id, j.pool_id,
  j.quote_microusd, j.cost_microusd, j.started_at, j.deadline_at, j.cancel_asked_at, j.webhook_url,
  w.slug, v.number, r.price_per_job_microusd, r.price_per_gpu_second_microusd,
  coalesce(nullif(k.price_per_hour_microusd, 0), p.price_per_hour_microusd), k.preempt_at
FROM fleet_job j
JOIN builds_workflow w ON w.id = j.workflow_id
JOIN builds_version v ON v.id = j.version_id
JOIN billing_planrevision r ON r.id = j.plan_revision_id
JOIN fleet_pool p ON p.id = j.pool_id
LEFT JOIN fleet_worker k ON k.id = j.worker_id
"""


@dataclass(slots=True)
class Held:
    """Columns of fleet_job and of what it refers to, as they were when the lock was taken."""

    id: UUID
    status: str
    attempt: int
    max_attempts: int
    worker_id: UUID | None
    customer_id: UUID
    plan_revision_id: int
    pool_id: int
    quote_microusd: int
    cost_microusd: int
    started_at: datetime | None
    deadline_at: datetime | None
    cancel_asked_at: datetime | None
    webhook_url: str
    workflow_slug: str
    version_number: int
    price_per_job: Decimal
    price_per_gpu_second: Decimal
    price_per_hour: int
    """What its worker costs an hour, as agreed when it was ordered; the pool's price where nothing was agreed."""
    preempt_at: datetime | None
    """When the provider takes its worker away."""

    def elapsed_s(self, now: datetime) -> float:
        """Seconds since the running attempt was claimed."""
        return max(0.0, (now - self.started_at).total_seconds()) if self.started_at else 0.0


def one(job_id: UUID) -> Held | None:
    """Lock a job and wait for whoever holds it."""
    found = sql.rows(f"{_COLUMNS} WHERE j.id = %s {sql.locking('FOR UPDATE OF j')}", [job_id])
    return _held(found[0]) if found else None


def some(where: str, parameters: list[Any], *, order: str, limit: int) -> list[Held]:
    """Lock up to `limit` jobs that match, passing over those somebody else holds."""
    found = sql.rows(f"{_COLUMNS} WHERE {where} ORDER BY {order} LIMIT %s {sql.locking('FOR UPDATE OF j SKIP LOCKED')}", [*parameters, limit])
    return [_held(row) for row in found]


def _held(row: tuple[Any, ...]) -> Held:
    (id_, status, attempt, attempts, worker, customer, plan, pool, quote, cost, started, deadline, cancel, webhook, *terms) = row
    slug, number, per_job, per_second, per_hour, preempt = terms
    return Held(
        id=sql.to_uuid(id_),
        status=status,
        attempt=attempt,
        max_attempts=attempts,
        worker_id=sql.to_uuid(worker) if worker is not None else None,
        customer_id=sql.to_uuid(customer),
        plan_revision_id=plan,
        pool_id=pool,
        quote_microusd=quote,
        cost_microusd=cost,
        started_at=sql.to_datetime(started),
        deadline_at=sql.to_datetime(deadline),
        cancel_asked_at=sql.to_datetime(cancel),
        webhook_url=webhook,
        workflow_slug=slug,
        version_number=number,
        price_per_job=Decimal(per_job),
        price_per_gpu_second=Decimal(per_second),
        price_per_hour=per_hour,
        preempt_at=sql.to_datetime(preempt),
    )
