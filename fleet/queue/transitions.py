"""The job's states and the two writes that change them: back into the queue, or to an end.

`finish` is the only code that makes a job terminal: status, ledger lines, released reservation and webhook go down
in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing import ledger, quotas
from billing.pricing import Terms, settle
from controlplane.kernel import outbox, sql
from fleet import fairness, wake
from fleet.queue.held import Held

ALLOWED: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "canceled", "expired", "succeeded"}),  # succeeded at once: answered from the result cache
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


_FINISH = """
UPDATE fleet_job SET status = %s, finished_at = %s, lease_until = NULL, node = '', failure_class = %s, error = %s,
  price_microusd = %s, billable_s = %s, cost_microusd = %s, revision = revision + 1,
  progress = CASE WHEN %s = 'succeeded' THEN 1.0 ELSE progress END
WHERE id = %s
"""

_REQUEUE = """
UPDATE fleet_job SET status = 'queued', fair_tag = %s, queued_at = %s, lease_until = NULL, worker_id = NULL, node = '',
  progress = 0, cost_microusd = %s, revision = revision + 1
WHERE id = %s
"""


# As if it had never been claimed: the tag and the time that gave it its place stay.
_REQUEUE_IN_PLACE = """
UPDATE fleet_job SET status = 'queued', max_attempts = max_attempts + 1, lease_until = NULL, worker_id = NULL, node = '',
  progress = 0, cost_microusd = %s, revision = revision + 1
WHERE id = %s
"""


def finish(held: Held, ending: Ending, *, now: datetime) -> int:
    """Make a held job terminal and return its price in micro-dollars."""
    check(held.status, ending.status)
    lines = settle(
        Terms(held.price_per_job, held.price_per_gpu_second),
        outcome=ending.status,
        failure_class=ending.failure_class,
        gpu_seconds=ending.billable_s,
        quote_microusd=held.quote_microusd,
    )
    price = ledger.post(
        ledger.Posting(
            job_id=held.id,
            customer_id=held.customer_id,
            plan_revision_id=held.plan_revision_id,
            workflow_slug=held.workflow_slug,
            version_number=held.version_number,
            outcome=ending.status,
            failure_class=ending.failure_class,
            lines=lines,
        ),
        now=now,
    )
    quotas.release(customer_id=held.customer_id, amount_microusd=held.quote_microusd, price_microusd=price, now=now)
    cost = held.cost_microusd + ending.cost_microusd
    values = [ending.status, now, ending.failure_class, ending.error, price, ending.billable_s, cost, ending.status, held.id]
    sql.send(_FINISH, values)
    if held.webhook_url:
        outbox.put(
            topic="webhook", key=f"{held.id}:{ending.status}", payload={"job": str(held.id), "url": held.webhook_url, "type": f"job.{ending.status}"}, now=now
        )
    held.status = ending.status
    return price


def requeue(held: Held, *, cost_microusd: int, in_place: bool = False, now: datetime) -> None:
    """Put a held running job back for another worker: in front of its class, or `in_place`, where it stood, with its attempt given back."""
    check(held.status, "queued")
    if in_place:
        sql.send(_REQUEUE_IN_PLACE, [held.cost_microusd + cost_microusd, held.id])
    else:
        sql.send(_REQUEUE, [fairness.FRONT, now, held.cost_microusd + cost_microusd, held.id])
    wake.pool(held.pool_id)
    held.status = "queued"
