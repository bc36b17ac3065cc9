"""Reads of customers, their plan, account and keys for pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet

from billing.customers import INTERNAL_PLAN
from billing.models import Account, ApiKey, Customer, Plan, PlanRevision, UsageEntry
from billing.quotas import period_of

NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Standing:
    """Spend of this month against the plan's limit."""

    settled_microusd: int
    reserved_microusd: int
    limit_microusd: int
    active_jobs: int
    max_active_jobs: int

    @property
    def used_microusd(self) -> int:
        return self.settled_microusd + self.reserved_microusd

    @property
    def share(self) -> float | None:
        """Used over the limit; None when the limit is zero."""
        return self.used_microusd / self.limit_microusd if self.limit_microusd else None


def standing(customer: Customer, *, now: datetime) -> Standing:
    """Where the customer stands; an account of an earlier month has spent nothing in this one."""
    plan = customer.plan_revision
    account: Account | None = getattr(customer, "account", None)
    settled = account.settled_microusd if account is not None and account.period == period_of(now) else 0
    reserved, active = (account.reserved_microusd, account.active_jobs) if account is not None else (0, 0)
    return Standing(settled, reserved, plan.monthly_limit_microusd, active, plan.max_active_jobs)


def customers(*, text: str = "", status: str = "") -> QuerySet[Customer]:
    """Customers with plan and account."""
    found = Customer.objects.select_related("plan_revision__plan", "account").order_by("slug")
    if text:
        found = found.filter(Q(name__icontains=text) | Q(slug__icontains=text))
    if status in Customer.Status.values:
        found = found.filter(status=status)
    return found


def near_limit(*, now: datetime, share: float = NEAR, most: int = 10) -> list[Customer]:
    """Active customers who used at least `share` of this month's limit, most used first."""
    limit = F("plan_revision__monthly_limit_microusd")
    found = customers(status="active").filter(account__period=period_of(now), plan_revision__monthly_limit_microusd__gt=0)
    found = found.filter(account__settled_microusd__gte=limit * share - F("account__reserved_microusd"))
    return sorted(found.order_by("-account__settled_microusd")[: most * 5], key=lambda c: -(standing(c, now=now).share or 0))[:most]


def customer(slug: str) -> Customer | None:
    """One customer with plan and account."""
    return customers().filter(slug=slug).first()


def keys(customer: Customer) -> list[ApiKey]:
    """A customer's keys: working ones first, then newest."""
    rows = customer.keys.select_related("rotated_from").order_by("-created_at")[:100]
    return sorted(rows, key=lambda k: k.revoked_at is not None)


def key_state(key: ApiKey, *, now: datetime) -> str:
    """active, revoked or key_expired."""
    if key.revoked_at is not None and key.revoked_at <= now:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "key_expired"
    return "active"


def expiring(keys: list[ApiKey], *, now: datetime, within: timedelta = timedelta(days=14)) -> list[ApiKey]:
    """Working keys that end soon."""
    return [k for k in keys if k.expires_at is not None and now < k.expires_at <= now + within and k.revoked_at is None]


def keys_ending(last4: str, *, most: int = 10) -> list[ApiKey]:
    """Keys by their last four characters, or by prefix."""
    return list(ApiKey.objects.filter(Q(last4=last4) | Q(prefix=last4)).select_related("customer").order_by("-created_at")[:most])


def offers() -> list[PlanRevision]:
    """The newest revision of every plan that is sold, by name."""
    newest: dict[int, PlanRevision] = {}
    for revision in PlanRevision.objects.exclude(plan__slug=INTERNAL_PLAN).select_related("plan").order_by("plan__name", "number"):
        newest[revision.plan_id] = revision
    return list(newest.values())


def plans_exist() -> bool:
    """Whether anything is sold yet."""
    return Plan.objects.exclude(slug=INTERNAL_PLAN).exists()


def ledger(customer: Customer, *, start: datetime, end: datetime) -> QuerySet[UsageEntry]:
    """Ledger lines booked in the range, newest first."""
    return UsageEntry.objects.filter(customer=customer, booked_at__gte=start, booked_at__lt=end).order_by("-booked_at", "-id")
