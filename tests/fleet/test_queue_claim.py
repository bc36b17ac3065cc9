"""Claiming: each job leased once, in order, by a worker that may; warm jobs earlier, within bounds."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from factories import make_customer, make_pool, make_runnable, make_version, make_worker, make_workflow, submit
from racing import race

from billing.models import Customer
from builds.models import Workflow
from controlplane.kernel.errors import Conflict
from fleet import membership, placement, queue
from fleet.models import Attempt, Job, Pool, Worker

S = timedelta(seconds=1)


@pytest.fixture
def pool(now: datetime) -> Pool:
    return make_pool(now=now)


@pytest.fixture
def workflow(pool: Pool, now: datetime) -> Workflow:
    return make_runnable(now=now, pool=pool)


@pytest.fixture
def customer(now: datetime) -> Customer:
    return make_customer(now=now)


@pytest.mark.django_db(transaction=True)
def test_claims_at_once_never_lease_a_job_twice(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    jobs = {submit(customer, workflow, now=now).id for _ in range(60)}
    workers = [make_worker(pool, now=now) for _ in range(8)]

    def drain(n: int) -> list[tuple[object, int]]:
        got: list[tuple[object, int]] = []
        size = 1 + n % 3
        while leased := queue.claim(workers[n], limit=size, warm=["other"] if n % 2 else [], now=now):
            assert len(leased) <= size, "more than asked for"
            got += [(a.job_id, a.attempt) for a in leased]
        return got

    results = race(8, drain)
    assert all(isinstance(r, list) for r in results), results
    taken = Counter(job for result in results for job, _ in result)
    assert set(taken) == jobs and set(taken.values()) == {1}, "leased twice, or left behind while others were claimed"
    for worker, result in zip(workers, results, strict=True):
        assert Job.objects.filter(worker=worker, status="running", attempt=1).count() == len(result) == Attempt.objects.filter(worker=worker).count()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_a_job_somebody_is_claiming_is_passed_over_not_waited_for(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    first, second, third = (submit(customer, workflow, now=now).id for _ in range(3))
    one, other = make_worker(pool, now=now), make_worker(pool, now=now)
    with transaction.atomic():
        assert [a.job_id for a in queue.claim(one, now=now)] == [first]
        assert race(1, lambda _: [a.job_id for a in queue.claim(other, now=now)], patience_s=10) == [[second]]
    assert [a.job_id for a in queue.claim(one, now=now)] == [third]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_who_loses_the_warm_job_takes_the_next_one_at_once(pool: Pool, customer: Customer, now: datetime) -> None:
    cold = make_runnable(now=now, pool=pool)
    warm = make_workflow(now=now, pool=pool)
    make_version(warm, now=now, warm_key="sdxl")
    waiting = submit(customer, cold, now=now).id
    wanted = submit(customer, warm, now=now).id
    worker = make_worker(pool, now=now)
    with transaction.atomic():
        Job.objects.select_for_update().get(id=wanted)
        assert race(1, lambda _: [a.job_id for a in queue.claim(worker, warm=["sdxl"], now=now)], patience_s=10) == [[waiting]]


@pytest.mark.django_db
def test_a_claim_leases_and_counts_the_attempt(pool: Pool, workflow: Workflow, customer: Customer, now: datetime, settings: object) -> None:
    job = submit(customer, workflow, now=now, deadline_s=60.5, request_id="r-1", inputs={"width": 99})
    worker = make_worker(pool, now=now)
    at = now + 3 * S
    (assignment,) = queue.claim(worker, limit=5, now=at)
    assert (assignment.job_id, assignment.attempt, assignment.request_id, assignment.inputs["width"]) == (job.id, 1, "r-1", 99)
    assert assignment.deadline_at == now + timedelta(seconds=60.5)
    job.refresh_from_db()
    assert (job.status, job.attempt, job.worker_id, job.started_at, job.revision) == ("running", 1, worker.id, at, 2)
    assert job.lease_until == at + timedelta(seconds=settings.WORKER["LEASE_S"])  # type: ignore[attr-defined]
    attempt = Attempt.objects.get(job=job)
    assert (attempt.number, attempt.state, attempt.claimed_at, attempt.timings, attempt.nodes, attempt.error) == (1, "running", at, {}, [], None)
    worker.refresh_from_db()
    assert (worker.state, worker.idle_since, worker.seen_at) == ("busy", None, at)
    assert queue.claim(worker, now=at) == []


@pytest.mark.django_db
def test_a_pool_gives_no_jobs_to_workers_of_another(workflow: Workflow, customer: Customer, now: datetime) -> None:
    submit(customer, workflow, now=now)
    stranger = make_worker(make_pool(now=now), now=now)
    assert not queue.ready(stranger, now=now)
    assert queue.claim(stranger, limit=16, now=now) == []


@pytest.mark.django_db
def test_priority_comes_before_fairness(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    low, normal, high = (submit(customer, workflow, now=now, priority=p).id for p in ("low", "normal", "high"))
    late_high = submit(make_customer(now=now), workflow, now=now, priority="high").id
    leased = queue.claim(make_worker(pool, now=now), limit=4, now=now)
    assert [a.job_id for a in leased] == [high, late_high, normal, low]


@pytest.mark.django_db
def test_a_job_that_is_put_back_is_next_in_its_class(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    submit(customer, workflow, now=now)
    worker = make_worker(pool, now=now)
    (lost,) = queue.claim(worker, now=now)
    others = [submit(customer, workflow, now=now).id for _ in range(3)]
    urgent = submit(customer, workflow, now=now, priority="high").id
    later = now + 60 * S
    assert queue.expire_leases(now=later) == 1
    leased = queue.claim(make_worker(pool, now=now), limit=9, now=later)
    assert [(a.job_id, a.attempt) for a in leased[:2]] == [(urgent, 1), (lost.job_id, 2)]
    assert {a.job_id for a in leased[2:]} == set(others)


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["stopped", "lost"])
def test_a_retired_worker_is_refused(pool: Pool, workflow: Workflow, customer: Customer, now: datetime, state: str) -> None:
    submit(customer, workflow, now=now)
    with pytest.raises(Conflict) as refused:
        queue.claim(make_worker(pool, now=now, state=state), now=now)
    assert refused.value.code == "worker_retired"


@pytest.mark.django_db
@pytest.mark.parametrize("left", ["stopped", "lost", "draining"])
def test_a_worker_that_left_since_it_was_read_gets_nothing(pool: Pool, workflow: Workflow, customer: Customer, now: datetime, left: str) -> None:
    """The row was read as idle; before its claim, the worker was retired or asked to leave."""
    job = submit(customer, workflow, now=now)
    stale = make_worker(pool, now=now)
    if left == "draining":
        membership.drain(Worker.objects.get(id=stale.id), actor="scaler", now=now)
    else:
        membership.stopped(Worker.objects.get(id=stale.id), reason="silence", lost=left == "lost", now=now)
    assert queue.claim(stale, now=now) == []
    job.refresh_from_db()
    assert (job.status, job.attempt, job.revision) == ("queued", 0, 1), "a lease to a worker that is gone hangs until it runs out"
    assert not Attempt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_claiming_while_the_worker_is_retired_leaves_no_lease_with_it(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    for _ in range(6):
        submit(customer, workflow, now=now)
    for _ in range(5):
        worker = make_worker(pool, now=now)
        read = Worker.objects.get(id=worker.id)
        race(2, lambda n, w=worker, r=read: queue.claim(r, limit=2, now=now) if n else membership.stopped(w, reason="crash", now=now))
        assert not Job.objects.filter(worker=worker, status="running").exists()


@pytest.mark.django_db
def test_a_draining_worker_is_given_nothing(pool: Pool, workflow: Workflow, customer: Customer, now: datetime) -> None:
    submit(customer, workflow, now=now)
    worker = make_worker(pool, now=now, drain_asked_at=now)
    assert not queue.ready(worker, now=now)
    assert queue.claim(worker, now=now) == []


@pytest.mark.django_db
def test_a_warm_job_is_taken_early_but_only_from_within_reach_and_while_nobody_waited_too_long(pool: Pool, customer: Customer, now: datetime) -> None:
    cold = make_runnable(now=now, pool=pool)
    warm = make_workflow(now=now, pool=pool)
    make_version(warm, now=now, warm_key="sdxl")
    ahead = [submit(customer, cold, now=now).id for _ in range(placement.LOOK_AHEAD)]
    beyond = submit(customer, warm, now=now).id
    worker = make_worker(pool, now=now)

    def next_job(at: datetime) -> object:
        with transaction.atomic():
            (leased,) = queue.claim(worker, warm=["sdxl"], now=at)
            transaction.set_rollback(True)
        return leased.job_id

    assert next_job(now) == ahead[0], "it stands beyond the look-ahead"
    Job.objects.filter(id=ahead[-1]).delete()
    assert next_job(now) == beyond
    assert next_job(now + placement.MAX_BYPASS - S) == beyond
    assert next_job(now + placement.MAX_BYPASS) == ahead[0], "the first in line waited too long to be passed over"


@pytest.mark.django_db
def test_warm_never_beats_a_priority_class(pool: Pool, customer: Customer, now: datetime) -> None:
    warm = make_workflow(now=now, pool=pool)
    make_version(warm, now=now, warm_key="sdxl")
    submit(customer, warm, now=now)
    urgent = submit(customer, make_runnable(now=now, pool=pool), now=now, priority="high").id
    (leased,) = queue.claim(make_worker(pool, now=now), warm=["sdxl"], now=now)
    assert leased.job_id == urgent


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'")
@pytest.mark.parametrize("paused", [None, 2])
def test_the_head_of_the_queue_is_read_once_a_claim(pool: Pool, workflow: Workflow, customer: Customer, now: datetime, paused: int | None) -> None:
    """A plan that read it again inside a loop could lease more jobs than were asked for."""
    from controlplane.kernel import sql
    from fleet.queue import claiming

    submit(customer, workflow, now=now)
    worker = make_worker(pool, now=now)
    with connection.cursor() as cursor:
        head, parameters = claiming._head(pool.id, limit=3, paused=paused)
        cursor.execute("EXPLAIN " + claiming._LEASE.format(chosen=head), sql.adapted([*parameters, worker.id, now, now]))
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "CTE chosen" in plan and plan.count("LockRows") == 1, plan
