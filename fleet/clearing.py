"""Clear a queue safely: only jobs that wait, none that runs, each ended the usual way and charged nothing; and submitted again when that is undone.

The row says what is to be cleared; the jobs go in batches, each a transaction of its own. Whoever dies in between leaves the
rest to the control loop, which goes on from the row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, F, Min, Q, QuerySet, Sum

from billing.models import Customer
from builds.models import Workflow
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid, WorkflowError
from fleet import admission, overflow
from fleet.models import EmergencyAction, Job, Pool
from fleet.queue import held as holding
from fleet.queue.transitions import Ending, finish

UNDO = timedelta(hours=24)
"""How long what was cleared can be submitted again."""
BATCH = 100
BUDGET_S = 3.0
CODE = "queue_cleared"


@dataclass(frozen=True, slots=True)
class Counted:
    """What clearing would do."""

    jobs: int
    customers: int
    reserved_microusd: int
    webhooks: int
    oldest_s: float


def clear_queue(
    pool: Pool,
    *,
    workflow: Workflow | None = None,
    customer: Customer | None = None,
    priority: str | None = None,
    older_than_s: float | None = None,
    actor: str,
    reason: str = "",
    once: str = "",
    now: datetime,
) -> EmergencyAction:
    """End the pool's waiting jobs that match, as canceled by us. What one call does not finish, the loop does. Raises Invalid."""
    if once and (before := EmergencyAction.objects.select_related("pool", "workflow").filter(once=once[:64]).first()) is not None:
        return before
    row = planned(pool, workflow=workflow, customer=customer, priority=priority, older_than_s=older_than_s, now=now)
    row.actor, row.reason, row.once = actor[:120], reason.strip()[:300], once[:64]
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            after = {"measure": str(row.id), "matching": waiting(row).count(), "priority": priority, **row.terms}
            after |= {"workflow": workflow.slug} if workflow is not None else {}
            audit.record(actor=actor, action="emergency.clear", object_type="pool", object_id=pool.slug, after=after, reason=row.reason, now=now)
    except IntegrityError:
        before = EmergencyAction.objects.select_related("pool", "workflow").filter(once=once[:64]).first() if once else None
        if before is None:
            raise
        return before
    go_on(row, fence=_nothing, now=now)
    overflow.forget()
    return row


def planned(
    pool: Pool,
    *,
    workflow: Workflow | None = None,
    customer: Customer | None = None,
    priority: str | None = None,
    older_than_s: float | None = None,
    now: datetime,
) -> EmergencyAction:
    """The measure, not saved: its `waiting` jobs are what would be cleared. Raises Invalid."""
    terms = _terms(customer=customer, older_than_s=older_than_s)
    return EmergencyAction(
        kind=EmergencyAction.Kind.CLEAR, pool=pool, workflow=workflow, priority=_rank(priority), terms=terms, starts_at=now, expires_at=now + UNDO
    )


def count(action: EmergencyAction) -> Counted:
    """How many jobs of how many customers it would end, and what becomes of their reservations. Changes nothing."""
    found = waiting(action).aggregate(
        jobs=Count("id"),
        customers=Count("customer", distinct=True),
        reserved=Sum("quote_microusd"),
        webhooks=Count("id", filter=~Q(webhook_url="")),
        oldest=Min("queued_at"),
    )
    oldest_s = max(0.0, (action.starts_at - found["oldest"]).total_seconds()) if found["oldest"] else 0.0
    return Counted(found["jobs"], found["customers"], found["reserved"] or 0, found["webhooks"], oldest_s)


def waiting(action: EmergencyAction) -> QuerySet[Job]:
    """The jobs this measure means: those that waited when it was taken and still do."""
    before = action.starts_at - timedelta(seconds=action.terms.get("older_than_s") or 0)
    found = Job.objects.filter(pool_id=action.pool_id, status="queued", queued_at__lte=before).exclude(source=Job.SMOKE).order_by()
    if action.workflow_id is not None:
        found = found.filter(workflow_id=action.workflow_id)
    if action.terms.get("customer_id"):
        found = found.filter(customer_id=action.terms["customer_id"])
    return found if action.priority is None else found.filter(priority=action.priority)


def cleared(action: EmergencyAction) -> QuerySet[Job]:
    """The jobs it ended."""
    ended = Job.objects.filter(finished_at__gte=action.starts_at, finished_at__lt=action.expires_at, status="canceled", pool_id=action.pool_id)
    return ended.filter(error__details__measure=str(action.id)).order_by("id")


def go_on(action: EmergencyAction, *, fence: Callable[[], None], now: datetime, budget_s: float = BUDGET_S) -> int:
    """Clear, or submit again, until it is done or the time is up; returns how many jobs."""
    began = time.monotonic()
    batch = _resubmit_some if action.terms.get("resubmit") == "asked" else _clear_some
    done = 0
    while time.monotonic() - began < budget_s:
        n = batch(action, fence=fence, now=now + timedelta(seconds=time.monotonic() - began))
        done += n or 0
        if n is None:
            break
    action.refresh_from_db()
    return done


def go_on_all(*, fence: Callable[[], None], now: datetime) -> str:
    """What was begun and not finished goes on; says how many jobs."""
    open_ = EmergencyAction.objects.filter(kind=EmergencyAction.Kind.CLEAR).filter(
        Q(ended_at__isnull=True, expires_at__gt=now) & ~Q(terms__has_key="done") | Q(terms__resubmit="asked")
    )
    said = []
    for action in open_.select_related("pool", "workflow").order_by("starts_at")[:5]:
        verb = "submitted again" if action.terms.get("resubmit") == "asked" else "cleared"
        said.append(f"{go_on(action, fence=fence, now=now)} {verb}")
    return ", ".join(said)


@transaction.atomic
def _clear_some(action: EmergencyAction, *, fence: Callable[[], None], now: datetime) -> int | None:
    """End a batch; None when none is left."""
    fence()
    held = EmergencyAction.objects.select_for_update(of=("self",)).get(id=action.id)
    if held.ended_at is not None:
        return None
    where, parameters = _where(held)
    # One order of accounts for every batch, so that two transactions cannot each hold what the other waits for.
    jobs = sorted(holding.some(where, parameters, order="j.customer_id, j.id", limit=BATCH), key=lambda job: (str(job.customer_id), str(job.id)))
    for job in jobs:
        finish(job, Ending("canceled", failure_class="platform", error=_error(held)), now=now)
    changed: dict[str, Any] = {"cleared": F("cleared") + len(jobs)}
    # Those somebody holds just now are being claimed or canceled: they are no longer ours to end.
    if not jobs:
        changed["terms"] = {**held.terms, "done": True}
    EmergencyAction.objects.filter(id=held.id).update(**changed)
    return len(jobs) or None


def _resubmit_some(action: EmergencyAction, *, fence: Callable[[], None], now: datetime) -> int | None:
    """Submit a batch of the cleared jobs again, in their order; None when none is left. Each at most once, by an idempotency key of its own."""
    terms: dict[str, Any] = action.terms
    rest = cleared(action).select_related("customer__plan_revision", "api_key", "workflow", "version")
    if terms.get("resubmit_after"):
        rest = rest.filter(id__gt=terms["resubmit_after"])
    batch = list(rest[:BATCH])
    again, refused = 0, dict(terms.get("refused") or {})
    for job in batch:
        try:
            again += 0 if _again(job, now=now).replayed else 1
        except WorkflowError as refusal:
            refused[refusal.code] = refused.get(refusal.code, 0) + 1
    with transaction.atomic():
        fence()
        terms = {**terms, "resubmitted": terms.get("resubmitted", 0) + again, "refused": refused}
        if batch:
            terms["resubmit_after"] = str(batch[-1].id)
        else:
            terms["resubmit"] = "done"
        EmergencyAction.objects.filter(id=action.id).update(terms=terms)
    action.terms = terms
    return again if batch else None


def _again(job: Job, *, now: datetime) -> admission.Admitted:
    deadline_s = None if job.deadline_at is None else (job.deadline_at - now).total_seconds()
    if deadline_s is not None and deadline_s < 1:
        raise Invalid("deadline_passed", "Its deadline has passed.", "Its customer may send it again.")
    key = f"again:{job.id}"
    return admission.submit(
        customer=job.customer,
        api_key=job.api_key,
        workflow=job.workflow,
        version=job.version,
        pinned=True,
        inputs=job.inputs,
        priority=Job.Priority(job.priority).label,
        deadline_s=deadline_s,
        metadata=job.metadata,
        webhook_url=job.webhook_url,
        idempotency_key=key,
        body_sha256=job.body_sha256,
        source=job.source,
        request_id=job.request_id,
        now=now,
    )


def _where(action: EmergencyAction) -> tuple[str, list[Any]]:
    """`waiting`, as `queue.held` takes it."""
    before = action.starts_at - timedelta(seconds=action.terms.get("older_than_s") or 0)
    where, parameters = "j.pool_id = %s AND j.status = 'queued' AND j.source <> 'smoke' AND j.queued_at <= %s", [action.pool_id, before]
    for column, value in (("workflow_id", action.workflow_id), ("customer_id", _customer_id(action)), ("priority", action.priority)):
        if value is not None:
            where += f" AND j.{column} = %s"
            parameters.append(value)
    return where, parameters


def _customer_id(action: EmergencyAction) -> Any:
    given = action.terms.get("customer_id")
    return UUID(given) if given else None


def _error(action: EmergencyAction) -> dict[str, Any]:
    return {
        "code": CODE,
        "message": "The queue was cleared by its operators before this job began.",
        "suggestion": "Nothing was charged. Send it again, unless it is submitted again for you.",
        "details": {"measure": str(action.id)},
    }


def _terms(*, customer: Customer | None, older_than_s: float | None) -> dict[str, Any]:
    if older_than_s is not None and (isinstance(older_than_s, bool) or not isinstance(older_than_s, int | float) or not 0 <= older_than_s <= 7 * 86_400):
        raise Invalid("older_than_invalid", "older_than_s lies between 0 and 604,800 seconds.", "An hour is 3600.", details={"field": "older_than_s"})
    terms: dict[str, Any] = {}
    if customer is not None:
        terms |= {"customer": customer.slug, "customer_id": str(customer.id)}
    if older_than_s:
        terms["older_than_s"] = float(older_than_s)
    return terms


def _rank(priority: str | None) -> int | None:
    if priority is None:
        return None
    if priority not in admission.PRIORITIES:
        raise Invalid("class_unknown", f"There is no class {str(priority)[:40]!r}.", "Choose high, normal or low.", details={"field": "priority"})
    return admission.PRIORITIES[priority]


def _nothing() -> None:
    return None
