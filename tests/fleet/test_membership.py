"""Workers come, drain and go."""

from __future__ import annotations

from datetime import datetime

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit
from racing import race

from controlplane.kernel.errors import Invalid
from controlplane.kernel.models import AuditEntry
from fleet import membership, queue, reconcile, tokens
from fleet.models import Job, Worker

pytestmark = pytest.mark.django_db


def register(pool: object, instance: str, now: datetime, **fields: object) -> tuple[Worker, str]:
    return membership.register(pool, protocol=1, instance=instance, name="", fingerprint={"gpu": "cpu"}, now=now, **fields)  # type: ignore[arg-type]


def test_an_ordered_worker_keeps_its_row_and_starts(now: datetime) -> None:
    pool = make_pool(now=now)
    ordered = make_worker(pool, now=now, state="ordered", registered_at=None, ready_at=None, idle_since=None)
    worker, token = register(pool, ordered.instance, now)
    assert (worker.id, worker.state, worker.name, worker.registered_at) == (ordered.id, "starting", ordered.name, now)
    assert tokens.worker_of(token).id == worker.id
    stranger, _ = register(pool, "by-hand", now)
    assert (stranger.state, stranger.name) == ("starting", "by-hand")


def test_draining_twice_is_written_down_once(now: datetime) -> None:
    worker = make_worker(make_pool(now=now), now=now)
    for _ in range(2):
        membership.drain(worker, actor="op", reason="card", now=now)
    assert AuditEntry.objects.filter(action="worker.drain").count() == 1
    stopped = make_worker(worker.pool, now=now, state="stopped", stopped_at=now)
    membership.drain(stopped, actor="op", now=now)
    assert Worker.objects.get(id=stopped.id).drain_asked_at is None


def test_a_worker_that_leaves_gives_all_its_jobs_back_at_once(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow, customer, worker = make_runnable(now=now, pool=pool), make_customer(now=now), make_worker(pool, now=now)
    for _ in range(5):
        submit(customer, workflow, now=now)
    queue.claim(worker, limit=4, now=now)
    assert membership.stopped(worker, reason="a reason longer than its column", message="x" * 900, now=now) == 4
    assert membership.stopped(worker, reason="again", now=now) == 0
    assert Job.objects.filter(status="queued").count() == 5
    worker.refresh_from_db()
    assert (worker.state, worker.stop_reason, len(worker.stop_message)) == ("stopped", "a reason longer than", 500)


@pytest.mark.django_db(transaction=True)
def test_leaving_many_times_at_once_requeues_once(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow, customer, worker = make_runnable(now=now, pool=pool), make_customer(now=now), make_worker(pool, now=now)
    for _ in range(4):
        submit(customer, workflow, now=now)
    queue.claim(worker, limit=4, now=now)
    assert sorted(race(5, lambda _: membership.stopped(worker, reason="crash", now=now))) == [0, 0, 0, 0, 4]
    assert set(Job.objects.values_list("attempt", "status")) == {(1, "queued")}
    assert reconcile.drift(now=now).total == 0


def test_an_unknown_protocol_is_refused(now: datetime) -> None:
    with pytest.raises(Invalid) as refused:
        membership.register(make_pool(now=now), protocol=2, instance="x", name="", fingerprint={}, now=now)
    assert refused.value.details == {"given": 2}
