"""What tests build on: plain functions that make one thing each, with sensible defaults and a name of its own."""

from __future__ import annotations

import hashlib
import itertools
from datetime import datetime
from typing import Any

from billing import keys, quotas
from billing.models import ApiKey, Customer, Plan, PlanRevision
from builds.models import Channel, Version, Workflow
from controlplane.kernel.ids import uuid7
from fleet import admission
from fleet.models import Job, Pool, Worker

_numbers = itertools.count(1)

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 3368652}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}
INPUTS: list[dict[str, Any]] = [
    {"name": "width", "node": "1", "input": "width", "type": "integer", "title": "Width", "default": 64, "minimum": 1, "maximum": 4096},
    {"name": "color", "node": "1", "input": "color", "type": "integer", "title": "Colour", "default": 3368652, "minimum": 0, "maximum": 16777215},
]


def make_plan(*, now: datetime, **terms: Any) -> PlanRevision:
    """A generous plan: a cent a job, 0.1 cent a GPU-second."""
    number = next(_numbers)
    plan = Plan.objects.create(slug=f"plan-{number}", name=f"Plan {number}")
    values: dict[str, Any] = {
        "price_per_job_microusd": 10_000,
        "price_per_gpu_second_microusd": 1_000,
        "monthly_limit_microusd": 1_000_000_000,
        "max_active_jobs": 10_000,
        "requests_per_minute": 100_000,
        "weight": 100,
        "max_priority": "high",
    }
    return PlanRevision.objects.create(plan=plan, number=1, created_at=now, **(values | terms))


def make_customer(*, now: datetime, plan: PlanRevision | None = None, slug: str = "") -> Customer:
    """An active customer with an open account."""
    name = slug or f"customer-{next(_numbers)}"
    customer = Customer.objects.create(slug=name, name=name.title(), plan_revision=plan or make_plan(now=now), created_at=now)
    quotas.open_account(customer.id, now=now)
    return customer


def make_key(customer: Customer, *, now: datetime, **fields: Any) -> tuple[ApiKey, str]:
    """A key with every scope, and its secret."""
    return keys.issue(customer=customer, name="test", now=now, **fields)


def make_pool(*, now: datetime, slug: str = "", **fields: Any) -> Pool:
    """A pool nobody scales, at $3.60 an hour: a tenth of a cent a second."""
    return Pool.objects.create(
        slug=slug or f"pool-{next(_numbers)}", name="Pool", created_at=now, **({"provider": "external", "price_per_hour_microusd": 3_600_000} | fields)
    )


def make_worker(pool: Pool, *, now: datetime, **fields: Any) -> Worker:
    """A registered idle worker."""
    number = next(_numbers)
    values: dict[str, Any] = {"state": Worker.State.IDLE, "idle_since": now, "registered_at": now, "ready_at": now, "seen_at": now}
    values["price_per_hour_microusd"] = pool.price_per_hour_microusd
    return Worker.objects.create(pool=pool, name=f"w-{number}", instance=f"instance-{number}", ordered_at=now, state_since=now, **(values | fields))


def make_workflow(*, now: datetime, pool: Pool | None = None, slug: str = "", **fields: Any) -> Workflow:
    """A workflow without a version."""
    name = slug or f"workflow-{next(_numbers)}"
    return Workflow.objects.create(slug=name, name=name, pool_slug=(pool or make_pool(now=now)).slug, created_at=now, **fields)


def make_version(
    workflow: Workflow, *, now: datetime, graph: dict[str, Any] | None = None, inputs: list[dict[str, Any]] | None = None, live: bool = True, **fields: Any
) -> Version:
    """A version, in production unless `live` is false."""
    number = workflow.versions.count() + 1
    version = Version.objects.create(
        workflow=workflow,
        number=number,
        sha256=hashlib.sha256(f"{workflow.slug}{number}".encode()).hexdigest(),
        author="test",
        graph=graph or GRAPH,
        inputs=INPUTS if inputs is None else inputs,
        created_at=now,
        **fields,
    )
    if live:
        Channel.objects.update_or_create(workflow=workflow, name="production", defaults={"version": version, "moved_at": now, "moved_by": "test"})
    return version


def make_runnable(*, now: datetime, pool: Pool | None = None, **fields: Any) -> Workflow:
    """A workflow with a live version."""
    workflow = make_workflow(now=now, pool=pool, **fields)
    make_version(workflow, now=now)
    return workflow


def submit(customer: Customer, workflow: Workflow, *, now: datetime, **fields: Any) -> Job:
    """A job, admitted the real way."""
    return admission.submit(customer=customer, api_key=None, workflow=workflow, inputs=fields.pop("inputs", {}), now=now, **fields).job


def some_id() -> str:
    """An id nothing has."""
    return str(uuid7())
