"""Heartbeats: leases renewed by their holder, progress that never goes back, states that race with claims."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from fleet import membership, queue, scaling
from fleet.models import Job, Pool, ScalingDecision, Worker
from fleet.providers.local import Local
from fleet.queue import Report

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


@pytest.fixture
def world(now: datetime) -> tuple:
    pool = make_pool(now=now)
    workflow, customer, worker = make_runnable(now=now, pool=pool), make_customer(now=now), make_worker(pool, now=now)
    job = submit(customer, workflow, now=now)
    queue.claim(worker, now=now)
    return pool, job, Worker.objects.get(id=worker.id)


def beat(worker: Worker, job: Job, at: datetime, *, attempt: int = 1, progress: float = 0.0, node: str = "", state: str = "busy") -> str:
    (verdict,) = queue.heartbeat(Worker.objects.get(id=worker.id), state=state, reports=[Report(job.id, attempt, progress, node)], now=at)
    return verdict.verdict


def test_a_lease_is_renewed_even_after_it_ran_out_as_long_as_nobody_took_the_job(world: tuple, now: datetime) -> None:
    _, job, worker = world
    assert beat(worker, job, now + 60 * S) == "ok"
    assert queue.expire_leases(now=now + 70 * S) == 0
    assert queue.expire_leases(now=now + 90 * S) == 1
    assert beat(worker, job, now + 91 * S) == "lost"


def test_progress_rises_only_and_only_news_raise_the_revision(world: tuple, now: datetime) -> None:
    _, job, worker = world
    seen = []
    for progress, node in [(0.5, "4"), (0.2, "4"), (0.5, "4"), (0.5, "7"), (7.0, "7"), (-3.0, "7")]:
        beat(worker, job, now + S, progress=progress, node=node)
        job.refresh_from_db()
        seen.append((job.progress, job.node, job.revision))
    assert seen == [(0.5, "4", 3), (0.5, "4", 3), (0.5, "4", 3), (0.5, "7", 4), (1.0, "7", 5), (1.0, "7", 5)]


@pytest.mark.parametrize("attempt", [0, 2, 2**14])
def test_another_attempt_is_lost_and_renews_nothing(world: tuple, now: datetime, attempt: int) -> None:
    _, job, worker = world
    lease = Job.objects.get(id=job.id).lease_until
    assert beat(worker, job, now + 5 * S, attempt=attempt, progress=0.9) == "lost"
    fresh = Job.objects.get(id=job.id)
    assert (fresh.lease_until, fresh.progress) == (lease, 0)


def test_another_workers_report_is_lost(world: tuple, now: datetime) -> None:
    pool, job, _ = world
    assert beat(make_worker(pool, now=now), job, now + S, progress=0.9) == "lost"
    assert Job.objects.get(id=job.id).progress == 0


def test_an_idle_beat_that_raced_with_a_claim_stops_no_busy_worker(world: tuple, now: datetime) -> None:
    """The agent said idle just before it heard of its job: the row says idle, the job says otherwise."""
    pool, job, worker = world
    queue.heartbeat(worker, state="idle", now=now + S)
    worker.refresh_from_db()
    assert worker.state == "idle"
    Pool.objects.filter(id=pool.id).update(base=0, max=1, provider="local", policy="threshold", knobs={"idle_s": 0})
    decision = scaling.step(Pool.objects.get(id=pool.id), provider=Local(), fence=lambda: None, epoch=1, now=now + 400 * S)
    assert (decision.wanted, decision.applied) == (-1, 0), "the rule only sees states"
    worker.refresh_from_db()
    assert (worker.state, worker.drain_asked_at) == ("idle", None), "but nothing is done to a worker with a running job"
    assert not ScalingDecision.objects.exists()
    assert beat(worker, job, now + 3 * S) == "ok"
    worker.refresh_from_db()
    assert (worker.state, worker.idle_since) == ("busy", None)


def test_looking_for_work_does_not_make_a_busy_worker_idle(world: tuple, now: datetime) -> None:
    _, _, worker = world
    queue.note_idle(worker, now=now + 5 * S)
    worker.refresh_from_db()
    assert worker.state == "busy"


@pytest.mark.parametrize("said", ["starting", "idle", "busy", "draining", "nonsense", ""])
def test_who_was_asked_to_leave_stays_leaving_whatever_it_says(world: tuple, now: datetime, said: str) -> None:
    _, _, worker = world
    membership.drain(worker, actor="op", now=now)
    for read in (worker, Worker.objects.get(id=worker.id)):  # read before it was asked, and after
        queue.heartbeat(read, state=said, now=now + S)
        assert Worker.objects.get(id=worker.id).state == "draining"


@pytest.mark.parametrize("lost", [True, False])
def test_a_retired_worker_stays_retired(world: tuple, now: datetime, lost: bool) -> None:
    _, job, worker = world
    membership.stopped(worker, reason="crash", lost=lost, now=now)
    queue.heartbeat(worker, state="busy", reports=[Report(job.id, 1, 0.5)], now=now + S)
    assert Worker.objects.get(id=worker.id).state == ("lost" if lost else "stopped")
    assert Job.objects.get(id=job.id).status == "queued"


def test_the_first_idle_beat_makes_a_worker_ready(world: tuple, now: datetime) -> None:
    pool, _, _ = world
    worker = make_worker(pool, now=now, state="starting", ready_at=None, idle_since=None)
    queue.heartbeat(worker, state="starting", now=now + S)
    assert Worker.objects.get(id=worker.id).ready_at is None
    queue.heartbeat(Worker.objects.get(id=worker.id), state="idle", usage={"ram_used_bytes": 1}, now=now + 2 * S)
    worker.refresh_from_db()
    assert (worker.state, worker.ready_at, worker.idle_since, worker.usage) == ("idle", now + 2 * S, now + 2 * S, {"ram_used_bytes": 1})


def test_no_reports_cost_one_statement_more_than_none(world: tuple, now: datetime, django_assert_max_num_queries: object) -> None:
    _, _, worker = world
    with django_assert_max_num_queries(4):  # type: ignore[operator]
        queue.heartbeat(worker, state="busy", now=now + S)
