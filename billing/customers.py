"""Customers and the plans they are on."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Max

from billing import quotas
from billing.models import Customer, Plan, PlanRevision
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict

# The customer that pays for what operators try out; it is ours, so it earns nothing and is no customer to win.
HOUSE = "console"
INTERNAL_PLAN = "internal"


@transaction.atomic
def publish_plan(
    *,
    slug: str,
    name: str,
    price_per_job_microusd: Decimal | int,
    price_per_gpu_second_microusd: Decimal | int,
    monthly_limit_microusd: int,
    max_active_jobs: int,
    requests_per_minute: int,
    weight: int = 100,
    max_priority: str = "normal",
    now: datetime,
) -> PlanRevision:
    """A new revision of plan `slug`; the same terms again return the revision there is."""
    plan, _ = Plan.objects.get_or_create(slug=slug, defaults={"name": name})
    Plan.objects.select_for_update().get(id=plan.id)
    terms = {
        "price_per_job_microusd": Decimal(price_per_job_microusd),
        "price_per_gpu_second_microusd": Decimal(price_per_gpu_second_microusd),
        "monthly_limit_microusd": monthly_limit_microusd,
        "max_active_jobs": max_active_jobs,
        "requests_per_minute": requests_per_minute,
        "weight": weight,
        "max_priority": max_priority,
    }
    latest = plan.revisions.order_by("-number").first()
    if latest is not None and all(getattr(latest, field) == value for field, value in terms.items()):
        return latest
    number = (plan.revisions.aggregate(n=Max("number"))["n"] or 0) + 1
    return PlanRevision.objects.create(plan=plan, number=number, created_at=now, **terms)


@transaction.atomic
def create(*, slug: str, name: str, plan_revision: PlanRevision, actor: str = "system", now: datetime) -> Customer:
    """A customer with an open account; raises Conflict when the slug is taken."""
    customer, made = Customer.objects.get_or_create(slug=slug, defaults={"name": name, "plan_revision": plan_revision, "created_at": now})
    if not made:
        raise Conflict("customer_exists", f"There is already a customer called {slug}.", "Choose another slug.")
    quotas.open_account(customer.id, now=now)
    audit.record(actor=actor, action="customer.create", object_type="customer", object_id=slug, after={"name": name, "plan": str(plan_revision)}, now=now)
    return customer


@transaction.atomic
def change_plan(customer: Customer, *, plan_revision: PlanRevision, actor: str, reason: str = "", now: datetime) -> None:
    """Move a customer to other terms; jobs already admitted keep theirs."""
    before = str(customer.plan_revision)
    customer.plan_revision = plan_revision
    customer.save(update_fields=["plan_revision"])
    audit.record(
        actor=actor,
        action="customer.plan",
        object_type="customer",
        object_id=customer.slug,
        before={"plan": before},
        after={"plan": str(plan_revision)},
        reason=reason,
        now=now,
    )


@transaction.atomic
def set_status(customer: Customer, *, status: str, actor: str, reason: str, now: datetime) -> None:
    """Suspend or reopen a customer. Suspension refuses new requests; running jobs finish."""
    before, customer.status = customer.status, status
    customer.save(update_fields=["status"])
    audit.record(
        actor=actor,
        action=f"customer.{status}",
        object_type="customer",
        object_id=customer.slug,
        before={"status": before},
        after={"status": status},
        reason=reason,
        now=now,
    )
