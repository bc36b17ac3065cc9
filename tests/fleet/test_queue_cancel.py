"""Canceling: at once while queued, through the worker while running, never the wrong attempt."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit
from racing import race

from billing.models import Account, UsageEntry
from controlplane.kernel.errors import Conflict, NotFound
from fleet import queue, reconcile
from fleet.models import Job

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


@pytest.fixture
def world(now: datetime) -> tuple:
    pool = make_pool(now=now)
    workflow, customer = make_runnable(now=now, pool=pool), make_customer(now=now)
    return submit(customer, workflow, now=now), make_worker(pool, now=now)


def test_a_queued_job_ends_at_once_for_nothing(world: tuple, now: datetime) -> None:
    job, worker = world
    for _ in range(2):
        assert queue.cancel(job_id=job.id, now=now).status == "canceled"
    assert UsageEntry.objects.count() == 2
    account = Account.objects.get(customer=job.customer_id)
    assert (account.reserved_microusd, account.active_jobs, account.settled_microusd) == (0, 0, 0)
    assert queue.claim(worker, now=now) == []


def test_a_running_job_is_asked_once_through_its_worker(world: tuple, now: datetime) -> None:
    job, worker = world
    queue.claim(worker, now=now)
    asked = queue.cancel(job_id=job.id, now=now + S)
    again = queue.cancel(job_id=job.id, now=now + 2 * S)
    assert (asked.status, asked.cancel_asked_at, again.cancel_asked_at, again.revision) == ("running", now + S, now + S, asked.revision)
    (verdict,) = queue.heartbeat(worker, state="busy", reports=[queue.Report(job.id, 1)], now=now + 3 * S)
    assert verdict.verdict == "cancel"


def test_a_cancel_meant_for_a_lost_attempt_ends_the_job_and_starts_no_other(world: tuple, now: datetime) -> None:
    job, worker = world
    queue.claim(worker, now=now)
    queue.cancel(job_id=job.id, now=now + S)
    queue.expire_leases(now=now + 60 * S)
    fresh = Job.objects.get(id=job.id)
    assert (fresh.status, fresh.price_microusd) == ("canceled", 0), "its worker went silent: that is ours to pay"
    assert queue.claim(worker, now=now + 60 * S) == []
    with pytest.raises(Conflict):
        queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome="canceled"), now=now + 61 * S)


def test_a_finished_job_says_so(world: tuple, now: datetime) -> None:
    job, worker = world
    queue.claim(worker, now=now)
    queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome="succeeded"), now=now + S)
    with pytest.raises(Conflict) as refused:
        queue.cancel(job_id=job.id, now=now + 2 * S)
    assert (refused.value.code, refused.value.details) == ("job_finished", {"status": "succeeded"})
    with pytest.raises(NotFound):
        queue.cancel(job_id=UUID(int=1), now=now)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(4))
def test_a_cancel_racing_with_a_claim_is_either_first_or_asked_for(world: tuple, now: datetime, round_: int) -> None:
    job, worker = world
    race(4, lambda n: queue.claim(worker, now=now) if n % 2 else queue.cancel(job_id=job.id, now=now))
    fresh = Job.objects.get(id=job.id)
    assert (fresh.status, fresh.attempt) == ("canceled", 0) or (fresh.status == "running" and fresh.cancel_asked_at is not None)
    assert reconcile.drift(now=now).total == 0
