"""Take a worker's word on how an attempt ended, exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from controlplane.kernel.errors import Conflict, Invalid
from fleet import costs
from fleet.models import Attempt, Job, Output, Worker
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


@transaction.atomic
def complete(worker: Worker, *, job_id: UUID, attempt: int, completion: Completion, now: datetime) -> bool:
    """End the attempt and what follows for the job. False when this very completion was accepted before; raises Conflict when stale."""
    job = Job.objects.select_for_update(of=("self",)).select_related("workflow", "version", "plan_revision", "pool").filter(id=job_id).first()
    if job is None or job.status != "running" or job.attempt != attempt or job.worker_id != worker.id:
        if Attempt.objects.filter(job_id=job_id, number=attempt, worker=worker, state=_state(completion)).exists():
            return False
        raise stale(job_id, attempt)
    busy_s = _seconds(completion.timings, job, now)
    cost = costs.of_seconds(job.pool.price_per_hour_microusd, busy_s)
    outcome, failure_class, error = completion.outcome, completion.failure_class, completion.error
    if outcome == "canceled" and job.cancel_asked_at is None and (job.deadline_at is None or job.deadline_at > now):
        # Nobody asked for this: the worker gave up on its own account.
        outcome, failure_class = "failed", "platform"
        error = {"code": "worker_gave_up", "message": "The worker stopped before the job was done.", "suggestion": "It is tried again on another worker."}
    Attempt.objects.filter(job_id=job_id, number=attempt, state="running").update(
        state=outcome,
        ended_at=now,
        failure_class=failure_class,
        error=error,
        timings=completion.timings,
        nodes=completion.nodes[:500],
        busy_s=busy_s,
        cost_microusd=cost,
    )
    if outcome == "succeeded":
        _publish(job, attempt, completion.outputs)
        finish(job, Ending("succeeded", billable_s=busy_s, cost_microusd=cost), now=now)
    else:
        after_failure(job, failure_class=failure_class, error=error, busy_s=busy_s, cost_microusd=cost, now=now)
    Worker.objects.filter(id=worker.id).update(jobs_done=F("jobs_done") + 1, busy_s=F("busy_s") + busy_s, seen_at=now)
    Worker.objects.filter(id=worker.id, state=Worker.State.BUSY).update(state=Worker.State.IDLE, state_since=now, idle_since=now)
    return True


def after_failure(job: Job, *, failure_class: str, error: dict[str, Any] | None, busy_s: float, cost_microusd: int, now: datetime) -> None:
    """Requeue or end a locked job whose attempt is over without success."""
    ended = Ended(failure_class, job.attempt, job.max_attempts, job.cancel_asked_at is not None, job.deadline_at)
    status = next_status(ended, now=now)
    if status == "queued":
        requeue(job, cost_microusd=cost_microusd, now=now)
    elif status == "canceled":
        finish(job, Ending("canceled", failure_class="customer_cancel", error=CANCELED, billable_s=busy_s, cost_microusd=cost_microusd), now=now)
    elif status == "expired":
        finish(job, Ending("expired", failure_class="capacity", error=EXPIRED, billable_s=busy_s, cost_microusd=cost_microusd), now=now)
    else:
        finish(job, Ending("failed", failure_class=failure_class or "platform", error=error, billable_s=busy_s, cost_microusd=cost_microusd), now=now)


def stale(job_id: UUID, attempt: int) -> Conflict:
    """The refusal every late report gets."""
    return Conflict("attempt_stale", f"Attempt {attempt} of job {job_id} is over or belongs to another worker.", "Drop it; nothing was changed.")


def _publish(job: Job, attempt: int, listed: list[dict[str, Any]]) -> None:
    """Show the outputs of this attempt to the customer, after checking that each was really stored."""
    stored = {o.index: o for o in Output.objects.filter(job=job, attempt=attempt)}
    for item in listed:
        output = stored.get(int(item["index"]))
        if output is None or output.blob_id != item["sha256"]:
            raise Invalid("output_missing", f"Output {item['index']} was reported but not stored.", "Store it first, or complete the attempt as failed.")
        measured = item.get("measurements") or {}
        output.measurements, output.published = measured, True
        output.width, output.height, output.duration_s = (_number(measured.get(k)) for k in ("width", "height", "duration_s"))
    if listed:
        Output.objects.bulk_update(stored.values(), ["measurements", "published", "width", "height", "duration_s"])


def _number(value: object) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _seconds(timings: dict[str, float], job: Job, now: datetime) -> float:
    """Busy seconds as the agent measured them, never more than went by since the claim."""
    elapsed = max(0.0, (now - job.started_at).total_seconds()) if job.started_at else 0.0
    reported = timings.get("busy_s")
    return min(max(float(reported), 0.0), elapsed) if reported is not None else elapsed


def _state(completion: Completion) -> str:
    return completion.outcome


CANCELED = {"code": "canceled", "message": "The job was canceled on request.", "suggestion": "Only seconds it had already run are charged; send it again when you want it."}
EXPIRED = {"code": "deadline_passed", "message": "The job's deadline passed before it was done.", "suggestion": "Nothing was charged; allow more time, or raise its priority."}
