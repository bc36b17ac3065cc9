"""Take a worker's word on how an attempt ended, exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from controlplane.kernel import sql
from controlplane.kernel.errors import Conflict, Invalid
from fleet import costs
from fleet.models import Attempt, Output, Worker
from fleet.queue import held as holding
from fleet.queue.held import Held
from fleet.queue.transitions import Ending, finish, requeue
from fleet.retries import Ended, next_status


@dataclass(frozen=True, slots=True)
class Completion:
    """What the agent reports at the end of an attempt."""

    outcome: str  # succeeded, failed, canceled
    failure_class: str = ""
    error: dict[str, Any] | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)


MOST_ATTEMPTS = 50
"""Attempts after which even a job whose workers are always taken away is no longer given another for nothing."""

# A worker that gave up unasked said canceled, and was written down as failed.
_RECORDED_AS = {"succeeded": ("succeeded",), "failed": ("failed",), "canceled": ("canceled", "failed")}

_END_ATTEMPT = """
UPDATE fleet_attempt SET state = %s, ended_at = %s, failure_class = %s, error = %s, timings = %s, nodes = %s, busy_s = %s, cost_microusd = %s
WHERE job_id = %s AND number = %s AND state = 'running'
"""

_WORKER_DONE = """
UPDATE fleet_worker SET jobs_done = jobs_done + 1, busy_s = busy_s + %s, seen_at = %s,
  state_since = CASE WHEN state = 'busy' THEN %s ELSE state_since END,
  idle_since = CASE WHEN state = 'busy' THEN %s ELSE idle_since END,
  state = CASE WHEN state = 'busy' THEN 'idle' ELSE state END
WHERE id = %s
"""


@transaction.atomic
def complete(worker: Worker, *, job_id: UUID, attempt: int, completion: Completion, now: datetime) -> bool:
    """End the attempt and what follows for the job. False when this very completion was accepted before; raises Conflict when stale."""
    held = holding.one(job_id)
    if held is None or held.status != "running" or held.attempt != attempt or held.worker_id != worker.id:
        if Attempt.objects.filter(job_id=job_id, number=attempt, worker=worker, state__in=_RECORDED_AS[completion.outcome]).exists():
            return False
        raise stale(job_id, attempt)
    busy_s = _seconds(completion.timings, held, now)
    cost = costs.of_seconds(held.price_per_hour, busy_s)
    # Fetching models is our cost and no work of the customer's: who comes first to a new worker pays no more than who comes after.
    billable_s = max(busy_s - completion.timings.get("models_s", 0.0), 0.0)
    outcome, failure_class, error = completion.outcome, completion.failure_class, completion.error
    if outcome == "canceled" and held.cancel_asked_at is None and (held.deadline_at is None or held.deadline_at > now):
        # Nobody asked for this: the worker gave up on its own account.
        outcome, failure_class, error = "failed", "platform", GAVE_UP
    if outcome == "failed" and failure_class == "platform" and held.preempt_at is not None:
        failure_class = "capacity"  # its provider ended it: no fault of the platform's, and no attempt of the job's
    if outcome == "succeeded" and completion.outputs:
        _publish(held.id, attempt, completion.outputs)
    ended: dict[str, Any] = {"failure_class": failure_class, "error": error, "busy_s": busy_s}
    with sql.together():
        end_attempt(held, state=outcome, **ended, timings=completion.timings, nodes=completion.nodes, cost=cost, now=now)
        # Locks go job, worker, account, here as in `membership.stopped`: the other way round the two could wait for each other.
        sql.send(_WORKER_DONE, [busy_s, now, now, now, worker.id])
        if outcome == "succeeded":
            finish(held, Ending("succeeded", billable_s=billable_s, cost_microusd=cost), now=now)
        else:
            after_failure(held, **(ended | {"busy_s": billable_s}), cost_microusd=cost, now=now)
    return True


def end_attempt(
    held: Held,
    *,
    state: str,
    failure_class: str = "",
    error: dict[str, Any] | None = None,
    timings: dict[str, float] | None = None,
    nodes: list[dict[str, Any]] | None = None,
    busy_s: float,
    cost: int,
    now: datetime,
) -> None:
    """Close the running attempt of a held job."""
    sql.send(_END_ATTEMPT, [state, now, failure_class, error, timings or {}, (nodes or [])[:500], busy_s, cost, held.id, held.attempt])


def after_failure(held: Held, *, failure_class: str, error: dict[str, Any] | None, busy_s: float, cost_microusd: int, now: datetime) -> None:
    """Requeue or end a held job whose attempt is over without success. One whose worker its provider took away gets that attempt back, and its place."""
    taken_away = held.preempt_at is not None and failure_class == "capacity" and held.attempt < MOST_ATTEMPTS
    ended = Ended(failure_class, held.attempt, held.max_attempts + taken_away, held.cancel_asked_at is not None, held.deadline_at)
    status = next_status(ended, now=now)
    if status == "queued":
        requeue(held, cost_microusd=cost_microusd, in_place=taken_away, now=now)
    elif status == "canceled":
        finish(held, Ending("canceled", failure_class="customer_cancel", error=CANCELED, billable_s=busy_s, cost_microusd=cost_microusd), now=now)
    elif status == "expired":
        finish(held, Ending("expired", failure_class="capacity", error=EXPIRED, billable_s=busy_s, cost_microusd=cost_microusd), now=now)
    else:
        finish(held, Ending("failed", failure_class=failure_class or "platform", error=error, billable_s=busy_s, cost_microusd=cost_microusd), now=now)


def stale(job_id: UUID, attempt: int) -> Conflict:
    """The refusal every late report gets."""
    return Conflict("attempt_stale", f"Attempt {attempt} of job {job_id} is over or belongs to another worker.", "Drop it; nothing was changed.")


def _publish(job_id: UUID, attempt: int, listed: list[dict[str, Any]]) -> None:
    """Show the outputs of this attempt to the customer, after checking that each was really stored."""
    stored = {o.index: o for o in Output.objects.filter(job_id=job_id, attempt=attempt)}
    for item in listed:
        output = stored.get(int(item["index"]))
        if output is None or output.blob_id != item["sha256"]:
            raise Invalid("output_missing", f"Output {item['index']} was reported but not stored.", "Store it first, or complete the attempt as failed.")
        measured = item.get("measurements") or {}
        output.measurements, output.published = measured, True
        output.width, output.height, output.duration_s = (_number(measured.get(k)) for k in ("width", "height", "duration_s"))
    shown = [stored[int(item["index"])] for item in listed]
    Output.objects.bulk_update(shown, ["measurements", "published", "width", "height", "duration_s"])


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _seconds(timings: dict[str, float], held: Held, now: datetime) -> float:
    """Busy seconds as the agent measured them, never more than went by since the claim."""
    elapsed = held.elapsed_s(now)
    reported = timings.get("busy_s")
    return min(max(float(reported), 0.0), elapsed) if reported is not None else elapsed


CANCELED = {
    "code": "canceled",
    "message": "The job was canceled on request.",
    "suggestion": "Only seconds it had already run are charged; send it again when you want it.",
}
EXPIRED = {
    "code": "deadline_passed",
    "message": "The job's deadline passed before it was done.",
    "suggestion": "Nothing was charged; allow more time, or raise its priority.",
}
GAVE_UP = {"code": "worker_gave_up", "message": "The worker stopped before the job was done.", "suggestion": "It was tried as often as allowed; send it again."}
