"""Leases that ran out, deadlines that passed, workers that went away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.kernel import sql
from fleet import costs
from fleet.models import Pool, Worker
from fleet.queue import held as holding
from fleet.queue.completing import EXPIRED, after_failure, end_attempt
from fleet.queue.held import Held
from fleet.queue.transitions import Ending, finish

CANNOT_START = {
    "code": "workers_cannot_start",
    "message": "The job's deadline passed while workers could not start.",
    "suggestion": "Nothing was charged. We have been told; send it again later.",
}
TAKEN_OUT = {
    "code": "worker_faulted",
    "message": "The worker running this job was taken out.",
    "suggestion": "It was tried as often as allowed; send it again.",
}
TAKEN_AWAY = {"code": "worker_preempted", "message": "The machine running this job was taken away.", "suggestion": "Nothing was charged; send it again."}
LOST = {"code": "worker_lost", "message": "The worker running this job went silent.", "suggestion": "It was tried as often as allowed; send it again."}

# Before any account is locked, and without waiting for a job: whoever completes one holds it and wants its customer's account.
_ASK_TO_STOP = """
UPDATE fleet_job SET cancel_asked_at = %s, revision = revision + 1
WHERE id IN (SELECT id FROM fleet_job WHERE status = 'running' AND deadline_at <= %s AND cancel_asked_at IS NULL {lock})
"""


def expire_leases(*, now: datetime, limit: int = 100) -> int:
    """Requeue (or end) jobs whose lease ran out; returns how many."""
    return _lose("j.status = 'running' AND j.lease_until < %s", [now], order="j.lease_until", now=now, limit=limit)


def requeue_worker(worker: Worker, *, error: dict[str, Any] = LOST, now: datetime) -> int:
    """Take back at once every job of a worker that left, or that may keep none."""
    return _lose("j.status = 'running' AND j.worker_id = %s", [worker.id], order="j.id", now=now, limit=1000, error=error)


def take_back(worker: Worker, jobs: Sequence[UUID], *, now: datetime) -> int:
    """Take back these of the jobs a worker runs."""
    if not jobs:
        return 0
    where = f"j.status = 'running' AND j.worker_id = %s AND j.id IN ({sql.marks(len(jobs))})"
    return _lose(where, [worker.id, *jobs], order="j.id", now=now, limit=1000)


@transaction.atomic
def expire_deadlines(*, now: datetime, limit: int = 100) -> int:
    """End queued jobs past their deadline, and ask running ones to stop; returns how many were touched."""
    asked = sql.run(_ASK_TO_STOP.format(lock=sql.locking("FOR UPDATE SKIP LOCKED")), [now, now])
    late = holding.some("j.status = 'queued' AND j.deadline_at <= %s", [now], order="j.deadline_at", limit=limit)
    halted = set(Pool.objects.filter(id__in={held.pool_id for held in late}, halted_at__isnull=False).values_list("id", flat=True)) if late else set()
    for held in _by_customer(late):
        finish(held, Ending("expired", failure_class="capacity", error=CANNOT_START if held.pool_id in halted else EXPIRED), now=now)
    return len(late) + asked


@transaction.atomic
def _lose(where: str, parameters: list[Any], *, order: str, now: datetime, limit: int, error: dict[str, Any] = LOST) -> int:
    lost = holding.some(where, parameters, order=order, limit=limit)
    for held in _by_customer(lost):
        busy_s = held.elapsed_s(now)
        cost = costs.of_seconds(held.price_per_hour, busy_s)
        failure_class, said = ("capacity", TAKEN_AWAY) if held.preempt_at is not None else ("platform", error)
        end_attempt(held, state="lost", failure_class=failure_class, error=said, busy_s=busy_s, cost=cost, now=now)
        after_failure(held, failure_class=failure_class, error=said, busy_s=0.0, cost_microusd=cost, now=now)
    return len(lost)


def _by_customer(jobs: list[Held]) -> list[Held]:
    """One order of accounts for every batch, so that two batches cannot each hold what the other waits for."""
    return sorted(jobs, key=lambda held: held.customer_id)
