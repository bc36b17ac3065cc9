"""Customers and plans: revisions that never change, changes that are written down."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import make_customer
from racing import race

from billing import customers
from billing.models import Account, Customer, PlanRevision
from controlplane.kernel.errors import Conflict
from controlplane.kernel.models import AuditEntry

pytestmark = pytest.mark.django_db
TERMS: dict[str, Any] = {
    "slug": "team",
    "name": "Team",
    "price_per_job_microusd": 1000,
    "price_per_gpu_second_microusd": 50,
    "monthly_limit_microusd": 10**6,
    "max_active_jobs": 5,
    "requests_per_minute": 60,
}


def test_the_same_terms_are_the_same_revision_and_others_a_new_one(now: datetime) -> None:
    first = customers.publish_plan(**TERMS, now=now)
    assert customers.publish_plan(**TERMS, now=now + timedelta(days=1)) == first
    second = customers.publish_plan(**TERMS | {"weight": 200}, now=now)
    assert (first.number, second.number) == (1, 2)
    third = customers.publish_plan(**TERMS, now=now)
    assert third.number == 3, "going back to old terms is a change too"


@pytest.mark.django_db(transaction=True)
def test_publishing_at_once_numbers_each_revision_once(now: datetime) -> None:
    results = race(8, lambda n: customers.publish_plan(**TERMS | {"weight": 100 + n}, now=now))
    assert all(isinstance(r, PlanRevision) for r in results), results
    assert sorted(PlanRevision.objects.values_list("number", flat=True)) == list(range(1, 9))


def test_a_new_customer_has_an_account_and_a_line_in_the_audit(now: datetime) -> None:
    plan = customers.publish_plan(**TERMS, now=now)
    customer = customers.create(slug="acme", name="Acme", plan_revision=plan, actor="op", now=now)
    assert Account.objects.get(customer=customer).period == "2026-03"
    assert AuditEntry.objects.get(action="customer.create").object_id == "acme"
    with pytest.raises(Conflict) as refused:
        customers.create(slug="acme", name="Other", plan_revision=plan, now=now)
    assert refused.value.code == "customer_exists"
    assert Customer.objects.get().name == "Acme"


@pytest.mark.django_db(transaction=True)
def test_a_slug_wanted_twice_at_once_is_given_once(now: datetime) -> None:
    plan = customers.publish_plan(**TERMS, now=now)
    results = race(6, lambda _: customers.create(slug="acme", name="Acme", plan_revision=plan, now=now))
    assert sum(isinstance(r, Customer) for r in results) == 1
    assert {type(r) for r in results if not isinstance(r, Customer)} == {Conflict}
    assert AuditEntry.objects.filter(action="customer.create").count() == 1


def test_changes_are_written_down_with_before_after_and_reason(now: datetime) -> None:
    customer = make_customer(now=now)
    before = str(customer.plan_revision)
    plan = customers.publish_plan(**TERMS, now=now)
    customers.change_plan(customer, plan_revision=plan, actor="op", reason="upgrade", now=now)
    customers.set_status(customer, status="suspended", actor="op", reason="unpaid", now=now)
    moved, suspended = AuditEntry.objects.order_by("seq") if hasattr(AuditEntry, "seq") else AuditEntry.objects.order_by("pk")
    assert (moved.before, moved.after, moved.reason) == ({"plan": before}, {"plan": "Team r1"}, "upgrade")
    assert (suspended.action, suspended.after) == ("customer.suspended", {"status": "suspended"})
    customer.refresh_from_db()
    assert (customer.plan_revision, customer.status) == (plan, "suspended")
