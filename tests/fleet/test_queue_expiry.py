"""Leases that run out and deadlines that pass."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction  # noqa: F401  (connection: the condition of a mark)
from factories import make_customer, make_pool, make_runnable, make_worker, submit
from racing import race

from billing.models import UsageEntry
from fleet import queue, reconcile
from fleet.models import Attempt, Job

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


@pytest.fixture
def world(now: datetime) -> tuple:
    pool = make_pool(now=now)
    return pool, make_runnable(now=now, pool=pool), make_customer(now=now), make_worker(pool, now=now)


def test_a_lease_holds_to_its_last_moment(world: tuple, now: datetime, settings: object) -> None:
    pool, workflow, customer, worker = world
    submit(customer, workflow, now=now)
    queue.claim(worker, now=now)
    end = now + timedelta(seconds=settings.WORKER["LEASE_S"])  # type: ignore[attr-defined]
    assert queue.expire_leases(now=end) == 0
    assert queue.expire_leases(now=end + timedelta(microseconds=1)) == 1
    assert queue.expire_leases(now=end + 60 * S) == 0
    attempt = Attempt.objects.get()
    assert (attempt.state, attempt.failure_class, attempt.error["code"]) == ("lost", "platform", "worker_lost")
    assert attempt.cost_microusd > 0, "a lost attempt is costed"


def test_only_so_many_are_taken_back_at_a_time_the_oldest_first(world: tuple, now: datetime) -> None:
    pool, workflow, customer, worker = world
    for n in range(5):
        submit(customer, workflow, now=now)
        queue.claim(worker, now=now + n * S)
    late = now + 300 * S
    assert queue.expire_leases(now=late, limit=3) == 3
    assert set(Job.objects.filter(status="running").values_list("started_at", flat=True)) == {now + 3 * S, now + 4 * S}


def test_a_queued_job_past_its_deadline_ends_for_nothing(world: tuple, now: datetime) -> None:
    _, workflow, customer, _ = world
    job = submit(customer, workflow, now=now, deadline_s=10)
    assert queue.expire_deadlines(now=now + 9.9 * S) == 0
    assert queue.expire_deadlines(now=now + 10 * S) == 1
    assert queue.expire_deadlines(now=now + 11 * S) == 0
    job.refresh_from_db()
    assert (job.status, job.failure_class, job.price_microusd, job.error["code"]) == ("expired", "capacity", 0, "deadline_passed")
    assert reconcile.drift(now=now).total == 0


def test_a_running_job_past_its_deadline_is_asked_to_stop_once_and_then_expires(world: tuple, now: datetime) -> None:
    _, workflow, customer, worker = world
    job = submit(customer, workflow, now=now, deadline_s=10)
    queue.claim(worker, now=now)
    assert queue.expire_deadlines(now=now + 10 * S) == 1
    assert queue.expire_deadlines(now=now + 11 * S) == 0
    (verdict,) = queue.heartbeat(worker, state="busy", reports=[queue.Report(job.id, 1)], now=now + 11 * S)
    assert verdict.verdict == "cancel"
    queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome="canceled", timings={"busy_s": 11.0}), now=now + 12 * S)
    job.refresh_from_db()
    assert (job.status, job.price_microusd) == ("expired", 0)
    assert UsageEntry.objects.get(meter="gpu_second").quantity == 11


@pytest.mark.django_db(transaction=True)
def test_loops_of_two_controllers_end_each_job_once(world: tuple, now: datetime) -> None:
    pool, workflow, _, worker = world
    customers = [make_customer(now=now) for _ in range(4)]
    for n in range(24):
        submit(customers[n % 4], workflow, now=now, deadline_s=5 if n % 3 else None)
    queue.claim(worker, limit=10, now=now)
    Job.objects.filter(status="running").update(attempt=3)
    Attempt.objects.update(number=3)
    late = now + 100 * S
    results = race(6, lambda n: queue.expire_leases(now=late) if n % 2 else queue.expire_deadlines(now=late))
    assert all(isinstance(r, int) for r in results), results
    found = reconcile.drift(now=late)
    assert found.total == 0 and found.entries == 2 * found.terminal_jobs


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_asking_late_jobs_to_stop_never_waits_for_one_that_is_being_completed(world: tuple, now: datetime) -> None:
    _, workflow, customer, worker = world
    late = submit(customer, workflow, now=now, deadline_s=5)
    queue.claim(worker, now=now)
    submit(customer, workflow, now=now, deadline_s=5)
    with transaction.atomic():
        Job.objects.select_for_update().get(id=late.id)
        assert race(1, lambda _: queue.expire_deadlines(now=now + 6 * S), patience_s=10) == [1]
