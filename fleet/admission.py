"""Let a job in: one short transaction that validates nothing twice and promises nothing it cannot hold.

In order: inputs against the version's schema, priority and deadline against the plan, idempotency, result cache,
money and concurrency under the account's row, a place in the fair order. Every refusal has its own code and
leaves nothing behind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction

from billing import pricing, quotas
from billing.models import ApiKey, Customer, PlanRevision
from builds import inputs as input_rules
from builds.dependencies.fitting import refuse_unfit
from builds.models import Channel, Version, Workflow
from controlplane.kernel import jsonbody, outbound, sql
from controlplane.kernel.errors import Conflict, Forbidden, Gone, Invalid, LimitExceeded, NotFound, OutOfMoney, Unavailable, WorkflowError
from controlplane.kernel.ids import uuid7
from fleet import at_once, estimates, fairness, input_files, measures, overflow, result_cache, wake
from fleet.models import Job

PRIORITIES = {"high": 0, "normal": 1, "low": 2}
MAX_METADATA_BYTES = 8_192
MAX_DEADLINE_S = 7 * 86_400
MAX_QUEUE = 100_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job, whether it is an earlier one replayed, and where the account now stands."""

    job: Job
    replayed: bool
    standing: quotas.Standing | None = None


def submit(
    *,
    customer: Customer,
    api_key: ApiKey | None,
    workflow: Workflow,
    version: Version | None = None,
    pinned: bool = False,
    inputs: dict[str, Any],
    priority: str = "normal",
    deadline_s: float | None = None,
    metadata: dict[str, Any] | None = None,
    webhook_url: str = "",
    idempotency_key: str = "",
    body_sha256: str = "",
    source: str = "api",
    request_id: str = "",
    now: datetime,
) -> Admitted:
    """Admit a job of `workflow` for `customer`, or replay the one its idempotency key made. Raises a WorkflowError otherwise.

    `pinned` says that the caller named `version`: fast mode then does not change it.
    """
    plan = customer.plan_revision
    chosen = version or live_version(workflow)
    if idempotency_key:
        before = earlier(customer.id, idempotency_key, body_sha256)
        if before is not None:
            return Admitted(before, replayed=True)
    values = input_rules.fill_random(chosen, input_rules.validate(chosen, inputs))
    refuse_unfit(chosen, values)
    rank = _rank(priority, plan)
    deadline_at = _deadline(deadline_s, now)
    _check_metadata(metadata)
    if webhook_url:
        outbound.check_url(webhook_url)
    pool_id = _pool_id(workflow)
    asked, fast = chosen, None
    if source != Job.SMOKE:  # it must run what it tests
        asking = overflow.Asked(pool_id, customer.id, rank, chosen, pinned, values, set(inputs))
        fast = _measured(asking, workflow=workflow, customer=customer, now=now)
    if fast is not None:
        chosen, values = fast.version, fast.values
    values = input_files.keep_inline(chosen, values, customer=customer, now=now)
    input_files.check_owned(chosen, values, customer_id=customer.id)
    expected = estimates.of_version(chosen.id, now=now)
    quote = _quote(plan, chosen, asked, now=now)
    # A smoke job must run, whatever is remembered.
    result_key = result_cache.key_of(chosen, values) if workflow.result_cache_s and source != Job.SMOKE else ""
    job = Job(
        id=uuid7(),
        customer=customer,
        api_key=api_key,
        plan_revision=plan,
        workflow=workflow,
        version=chosen,
        pool_id=pool_id,
        source=source,
        request_id=request_id[:64],
        priority=rank,
        fair_tag=0,
        warm_key=chosen.warm_key,
        inputs=values,
        fast=None if fast is None else fast.record,
        metadata=metadata or {},
        webhook_url=webhook_url,
        idempotency_key=idempotency_key,
        body_sha256=body_sha256,
        result_key=result_key,
        created_at=now,
        queued_at=now,
        deadline_at=deadline_at,
        quote_microusd=quote,
    )
    try:
        standing = _enter(job, plan, cached_s=workflow.result_cache_s if result_key else 0, expected_s=expected.p50_s, now=now)
    except (IntegrityError, LimitExceeded, OutOfMoney):
        # Another request with the same idempotency key came first, in the same instant, and may have taken the last place.
        before = earlier(customer.id, idempotency_key, body_sha256) if idempotency_key else None
        if before is None:
            raise
        return Admitted(before, replayed=True)
    return Admitted(job, replayed=False, standing=standing)


def _measured(asking: overflow.Asked, *, workflow: Workflow, customer: Customer, now: datetime) -> overflow.Fast | None:
    """What the emergency measures in force make of the job: turned away (Unavailable), run the faster way, or nothing."""
    if not measures.in_force(asking.pool_id, now=now):
        return None
    if result_cache.remembered(workflow, asking.version, asking.values, customer, now=now):
        return None
    overflow.refuse_shed(asking, now=now)
    return overflow.fast(asking, workflow_id=workflow.id, now=now)


def _quote(plan: PlanRevision, version: Version, asked: Version, *, now: datetime) -> int:
    """Micro-dollars to reserve: the most a run of `version` costs by what is measured, and never more than one of what was asked for."""
    terms = pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd)
    quote = pricing.quote(terms, expected_s=estimates.of_version(version.id, now=now).p95_s)
    return quote if asked is version else min(quote, pricing.quote(terms, expected_s=estimates.of_version(asked.id, now=now).p95_s))


def _enter(job: Job, plan: PlanRevision, *, cached_s: int, expected_s: float, now: datetime) -> quotas.Standing:
    """Reserve, take a place and insert the job, or answer it with an equal one at most `cached_s` old; all of it or nothing."""
    if not cached_s and at_once.possible():
        standing = at_once.admit(job, plan=plan, expected_s=expected_s, now=now)
        if standing is not None:
            return standing
    with transaction.atomic():
        standing = quotas.reserve(customer_id=job.customer_id, plan=plan, amount_microusd=job.quote_microusd, now=now)
        equal = result_cache.equal(job, max_age=timedelta(seconds=cached_s), now=now) if cached_s else None
        if equal is None:
            job.fair_tag = _take_place(job, expected_s=expected_s, weight=plan.weight)
            sql.insert(job, returning=wake.TELL_POOL if wake.tells() else "")
        else:  # takes nobody's turn, so it gets no place in line
            sql.insert(job)
            result_cache.answer_with(equal, job, now=now)
    return standing


def live_version(workflow: Workflow) -> Version:
    """What the production channel runs; raises when the workflow is archived or nothing was released."""
    if workflow.archived_at is not None:
        raise Gone("workflow_archived", f"The workflow {workflow.slug} was archived.", "See GET /v1/workflows for what is offered now.")
    channel = Channel.objects.select_related("version").filter(workflow=workflow, name=Channel.Name.PRODUCTION).first()
    if channel is None:
        raise Conflict("workflow_not_released", f"No version of {workflow.slug} is in production yet.", "Promote a version to production first.")
    return channel.version


def earlier(customer_id: UUID, key: str, body_sha256: str) -> Job | None:
    """The job this idempotency key made; raises Invalid when that was for another body."""
    job = Job.objects.select_related("workflow", "version", "customer").filter(customer_id=customer_id, idempotency_key=key).first()
    if job is not None and job.body_sha256 != body_sha256:
        raise Invalid(
            "idempotency_key_reused",
            "This Idempotency-Key was used before with another body.",
            "Use a new key for a new request; send the very same body to replay the first.",
            details={"job": str(job.id)},
        )
    return job


def _rank(priority: str, plan: PlanRevision) -> int:
    if priority not in PRIORITIES:
        raise Invalid("priority_unknown", f"There is no priority {priority!r}.", "Use low, normal or high.", details={"field": "priority"})
    if PRIORITIES[priority] < PRIORITIES[plan.max_priority]:
        raise Forbidden("priority_not_in_plan", f"This plan allows priority {plan.max_priority} at most.", "Lower the priority, or move to another plan.")
    return PRIORITIES[priority]


def _deadline(deadline_s: float | None, now: datetime) -> datetime | None:
    if deadline_s is None:
        return None
    if not 1 <= deadline_s <= MAX_DEADLINE_S:
        raise Invalid(
            "deadline_out_of_range", f"deadline_s must lie between 1 and {MAX_DEADLINE_S}.", "Give seconds from now.", details={"field": "deadline_s"}
        )
    return now + timedelta(seconds=deadline_s)


def _check_metadata(metadata: dict[str, Any] | None) -> None:
    if not metadata:
        return
    text = json.dumps(metadata)
    if len(text) > MAX_METADATA_BYTES:
        raise Invalid(
            "metadata_too_large", f"metadata is larger than {MAX_METADATA_BYTES:,} bytes.", "Keep references there, not content.", details={"field": "metadata"}
        )
    jsonbody.load(text.encode())  # the API has looked before; whoever else calls must not store what no database keeps either


def _pool_id(workflow: Workflow) -> int:
    found = sql.rows("SELECT id FROM fleet_pool WHERE slug = %s", [workflow.pool_slug])
    if not found:
        raise Unavailable("pool_missing", "No pool serves this workflow at the moment.", "Try again later.", headers={"Retry-After": "60"})
    return int(found[0][0])


_TAKE_PLACE = """
INSERT INTO fleet_fairshare (customer_id, pool_id, finish_tag)
SELECT %s, p.id, {greatest}(p.virtual_time, coalesce((
  SELECT j.fair_tag FROM fleet_job j WHERE j.pool_id = p.id AND j.status = 'queued' AND j.priority = %s AND j.fair_tag > %s
  ORDER BY j.fair_tag LIMIT 1), 0), %s) + %s
FROM fleet_pool p WHERE p.id = %s
ON CONFLICT (customer_id, pool_id) DO UPDATE SET
  finish_tag = {greatest}(fleet_fairshare.finish_tag, excluded.finish_tag - %s) + %s
RETURNING finish_tag
"""


def _take_place(job: Job, *, expected_s: float, weight: int) -> int:
    """Advance the customer's finish tag in one statement (`fleet.fairness`) and return the start tag it gives this job.

    Virtual time is the tag of the first job in line, or of the last one started when nobody waits.
    """
    step = fairness.work(expected_s=expected_s, weight=weight)
    statement = _TAKE_PLACE.format(greatest="max" if connection.vendor == "sqlite" else "greatest")
    (row,) = sql.rows(statement, [job.customer_id, job.priority, fairness.FRONT, fairness.FRONT + 1, step, job.pool_id, step, step])
    return int(row[0]) - step


def workflow_named(slug: str) -> Workflow:
    """The workflow customers call `slug`; raises NotFound with what comes closest."""
    workflow = Workflow.objects.filter(slug=slug).first()
    if workflow is None:
        raise unknown_workflow(slug)
    return workflow


def unknown_workflow(slug: str) -> WorkflowError:
    """The refusal for a workflow that does not exist, naming the nearest one that does."""
    import difflib

    known = list(Workflow.objects.filter(archived_at__isnull=True).values_list("slug", flat=True)[:500])
    near = difflib.get_close_matches(slug, known, n=1)
    return NotFound(
        "workflow_not_found",
        f"There is no workflow called {slug[:60]!r}.",
        f"Did you mean {near[0]}?" if near else "See GET /v1/workflows for what is offered.",
        alternative_endpoint=f"/v1/workflows/{near[0]}" if near else "/v1/workflows",
    )
