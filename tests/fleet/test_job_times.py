"""What jobs take is read from the last runs of a pool, at the same price however many jobs have ended."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import connection

from controlplane.kernel import sql
from fleet import job_times, queue
from fleet.models import Attempt, Pool
from tests import factories
from tests.fleet import planning_rows as rows

pytestmark = pytest.mark.django_db


def of(pool: Pool, now: datetime) -> job_times.Times:
    job_times.forget()
    return job_times.of_pool(pool, now=now)


def test_the_last_runs_count_by_version_and_those_of_other_pools_do_not(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, workflow, _ = rows.pool_with_past(now=now, jobs=6, took_s=10)
    rows.pool_with_past(now=now, jobs=6, took_s=500)
    found = of(pool, now)
    assert (found.all.mean_s, found.all.samples) == (10, 6)
    assert list(found.by_version) == [workflow.versions.get().id] and list(found.shares.values()) == [1.0]
    worker = pool.workers.first()
    for n in range(3):
        rows.ran(factories.make_customer(now=now), workflow, worker, at=now + timedelta(seconds=n), took_s=40)
    monkeypatch.setattr(job_times, "RUNS", 3)
    assert of(pool, now).all.mean_s == 40, "the oldest are forgotten"


def test_a_job_that_went_back_counts_by_its_last_attempt_and_one_that_ended_in_the_queue_not_at_all(now: datetime) -> None:
    pool = factories.make_pool(now=now)
    workflow, customer = factories.make_runnable(now=now, pool=pool), factories.make_customer(now=now)
    first, second = factories.make_worker(pool, now=now), factories.make_worker(pool, now=now)
    again, never = factories.submit(customer, workflow, now=now), factories.submit(customer, workflow, now=now)
    queue.claim(first, limit=2, now=now)
    queue.requeue_worker(first, now=now + timedelta(seconds=300))
    leased = queue.claim(second, now=now + timedelta(seconds=400))
    done = leased[0].job_id
    queue.complete(second, job_id=done, attempt=2, completion=queue.Completion("succeeded"), now=now + timedelta(seconds=407))
    (left,) = {again.id, never.id} - {done}
    queue.cancel(job_id=left, now=now + timedelta(seconds=900))
    found = of(pool, now + timedelta(seconds=900))
    assert (found.all.mean_s, found.all.samples) == (7, 1)
    assert Attempt.objects.filter(job_id=done).count() == 2


def test_the_last_runs_are_one_range_of_one_index(now: datetime) -> None:
    pool, *_ = rows.pool_with_past(now=now, jobs=3)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {job_times._LAST}", sql.adapted([pool.id, 1000]))
        else:
            cursor.execute("DROP INDEX job_by_end")  # in the order wanted too: with so few rows it looks as cheap
            for way in ("seqscan", "sort", "bitmapscan"):
                cursor.execute(f"SET LOCAL enable_{way} = off")
            cursor.execute(f"EXPLAIN {job_times._LAST}", sql.adapted([pool.id, 1000]))
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    assert "job_last_runs" in plan, plan
    assert "TEMP B-TREE" not in plan and "Sort" not in plan, plan
