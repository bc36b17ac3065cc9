"""Reconciliation finds each kind of drift and names it; right books have none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from billing import ledger
from billing.models import Account, UsageEntry
from fleet import queue, reconcile
from fleet.models import Job

pytestmark = pytest.mark.django_db


@pytest.fixture
def job(now: datetime) -> Job:
    pool = make_pool(now=now)
    made = submit(make_customer(now=now, slug="acme"), make_runnable(now=now, pool=pool), now=now)
    worker = make_worker(pool, now=now)
    queue.claim(worker, now=now)
    queue.complete(worker, job_id=made.id, attempt=1, completion=queue.Completion(outcome="succeeded", timings={"busy_s": 0.0}), now=now)
    made.refresh_from_db()
    return made


def test_right_books_have_no_drift(job: Job, now: datetime) -> None:
    submit(job.customer, job.workflow, now=now)
    found = reconcile.drift(now=now)
    assert (found.total, found.terminal_jobs, found.entries, reconcile.recent_drift(now=now)) == (0, 1, 2, 0)


def test_a_terminal_job_without_its_lines_is_found(job: Job, now: datetime) -> None:
    row = Job.objects.filter(id=job.id).values().get()
    lost = Job.objects.create(**row | {"id": uuid4(), "price_microusd": 0})
    found = reconcile.drift(now=now)
    assert found.jobs_without_entries == [str(lost.id)]
    assert reconcile.recent_drift(now=now) == 1
    assert reconcile.recent_drift(now=now + timedelta(hours=1)) == 0, "the quick look is at what ended lately"


def test_lines_without_a_terminal_job_are_found(job: Job, now: datetime) -> None:
    same = UsageEntry.objects.filter(meter="job").values().get()
    ghost = UsageEntry.objects.create(**same | {"id": uuid4(), "job_id": uuid4(), "amount_microusd": 0})
    assert reconcile.drift(now=now).entries_without_jobs == [str(ghost.id)]


def test_a_price_that_is_not_the_sum_of_its_lines_is_found(job: Job, now: datetime) -> None:
    Job.objects.filter(id=job.id).update(price_microusd=job.price_microusd - 1)
    assert reconcile.drift(now=now).price_differs == [str(job.id)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reserved_microusd": 7}, "reserved 7"),
        ({"active_jobs": 2}, "2 active jobs"),
        ({"settled_microusd": 1}, "settled 1"),
        ({"period": "2026-02"}, "settled 0"),
    ],
)
def test_an_account_that_differs_is_named(job: Job, now: datetime, change: dict[str, Any], word: str) -> None:
    Account.objects.filter(customer=job.customer).update(**change)
    (said,) = reconcile.drift(now=now).accounts_differ
    assert said.startswith("acme: ") and word in said


def test_corrections_and_the_turn_of_a_month_are_no_drift(job: Job, now: datetime) -> None:
    april = datetime(2026, 4, 3, tzinfo=UTC)
    entry = UsageEntry.objects.get(meter="job")
    replacement = ledger.correct(entry, quantity=Decimal(1), amount_microusd=4_000, now=now)[1]
    assert reconcile.drift(now=now).total == 0
    ledger.correct(replacement, quantity=Decimal(1), amount_microusd=0, now=april)
    assert reconcile.drift(now=april).total == 0
