"""The ledger: one line per job and meter by constraint, never edited, corrected by reversal and replacement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from factories import make_customer
from racing import race

from billing import ledger, quotas
from billing.models import Account, Customer, PlanRevision, UsageEntry
from billing.pricing import Line
from controlplane.kernel.errors import Conflict, Invalid
from fleet import reconcile

LINES = [Line("job", Decimal(1), Decimal(100), 100), Line("gpu_second", Decimal("2.5"), Decimal(10), 25)]


def posting(customer: Customer, job_id: UUID) -> ledger.Posting:
    return ledger.Posting(
        job_id=job_id,
        customer_id=customer.id,
        plan_revision_id=customer.plan_revision_id,
        workflow_slug="paint",
        version_number=1,
        outcome="succeeded",
        failure_class="",
        lines=LINES,
    )


@pytest.fixture
def entry(now: datetime) -> UsageEntry:
    customer = make_customer(now=now)
    quotas.reserve(customer_id=customer.id, plan=customer.plan_revision, amount_microusd=125, now=now)
    assert ledger.post(posting(customer, uuid4()), now=now) == 125
    quotas.release(customer_id=customer.id, amount_microusd=125, price_microusd=125, now=now)
    return UsageEntry.objects.get(meter="job")


@pytest.mark.django_db
def test_the_database_refuses_a_second_posting_of_a_job(now: datetime) -> None:
    customer, job_id = make_customer(now=now), uuid4()
    ledger.post(posting(customer, job_id), now=now)
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.post(posting(customer, job_id), now=now + timedelta(hours=1))
    assert UsageEntry.objects.filter(job_id=job_id).count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_posting_one_job_at_once_one_succeeds(now: datetime) -> None:
    customer, job_id = make_customer(now=now), uuid4()
    results = race(12, lambda _: ledger.post(posting(customer, job_id), now=now))
    assert [r for r in results if r == 125] == [125]
    assert sum(isinstance(r, IntegrityError) for r in results) == 11
    assert UsageEntry.objects.filter(job_id=job_id).count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_usageentry SET amount_microusd = 0",
        "UPDATE billing_usageentry SET booked_at = recorded_at",
        "DELETE FROM billing_usageentry",
        "UPDATE billing_planrevision SET price_per_job_microusd = 0",
        "DELETE FROM billing_planrevision",
    ],
)
def test_history_refuses_raw_statements(entry: UsageEntry, statement: str) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert UsageEntry.objects.get(id=entry.id).amount_microusd == 100
    assert PlanRevision.objects.count() == 1


@pytest.mark.django_db
def test_history_refuses_the_orm(entry: UsageEntry) -> None:
    entry.amount_microusd = 1
    for change in (entry.save, entry.delete, lambda: UsageEntry.objects.update(quantity=0), lambda: UsageEntry.objects.bulk_update([entry], ["quantity"])):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()


@pytest.mark.django_db
def test_a_correction_reverses_replaces_and_keeps_the_books_right(entry: UsageEntry, now: datetime) -> None:
    later = now + timedelta(days=1)
    reversal, replacement = ledger.correct(entry, quantity=Decimal(1), amount_microusd=30, now=later)
    assert (reversal.amount_microusd, reversal.quantity, reversal.reverses_id) == (-100, -1, entry.id)
    assert (replacement.amount_microusd, replacement.revision, replacement.occurred_at, replacement.booked_at) == (30, 2, now, later)
    assert Account.objects.get(customer=entry.customer_id).settled_microusd == 55
    assert reconcile.drift(now=later).accounts_differ == []
    again = ledger.correct(replacement, quantity=Decimal(1), amount_microusd=90, now=later)[1]
    assert (again.revision, Account.objects.get(customer=entry.customer_id).settled_microusd) == (3, 115)
    assert reconcile.drift(now=later).accounts_differ == []


@pytest.mark.django_db
def test_a_correction_of_an_earlier_month_leaves_this_months_limit_alone(entry: UsageEntry) -> None:
    april = datetime(2026, 4, 2, tzinfo=UTC)
    customer = Customer.objects.get()
    quotas.reserve(customer_id=customer.id, plan=customer.plan_revision, amount_microusd=10, now=april)
    quotas.release(customer_id=customer.id, amount_microusd=10, price_microusd=0, now=april)
    ledger.correct(entry, quantity=Decimal(0), amount_microusd=0, now=april)
    account = Account.objects.get(customer=customer)
    assert (account.period, account.settled_microusd) == ("2026-04", 0)
    assert reconcile.drift(now=april).accounts_differ == []
    assert sum(UsageEntry.objects.filter(period="2026-04").values_list("amount_microusd", flat=True)) == -100


@pytest.mark.django_db
def test_what_was_reversed_is_not_reversed_again(entry: UsageEntry, now: datetime) -> None:
    reversal, _ = ledger.correct(entry, quantity=Decimal(1), amount_microusd=30, now=now)
    for line in (entry, reversal):
        with pytest.raises(Conflict) as refused:
            ledger.correct(line, quantity=Decimal(1), amount_microusd=1, now=now)
        assert refused.value.code == "entry_already_reversed"
    with pytest.raises(Invalid):
        ledger.correct(UsageEntry.objects.get(meter="gpu_second"), quantity=Decimal(1), amount_microusd=-1, now=now)


@pytest.mark.django_db(transaction=True)
def test_of_many_corrections_at_once_one_is_written(entry: UsageEntry, now: datetime) -> None:
    results = race(8, lambda n: ledger.correct(entry, quantity=Decimal(1), amount_microusd=n, now=now))
    assert sum(isinstance(r, tuple) for r in results) == 1
    assert {type(r) for r in results if not isinstance(r, tuple)} == {Conflict}
    assert reconcile.drift(now=now).accounts_differ == []
