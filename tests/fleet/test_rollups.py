"""Minute rollups: the same rows however often and late they are computed, adding up to the jobs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from controlplane.kernel.stats import Histogram
from fleet import queue, rollups
from fleet.models import Job, MinuteRollup, Pool

pytestmark = pytest.mark.django_db
S = timedelta(seconds=1)


@pytest.fixture
def world(now: datetime) -> tuple[Any, ...]:
    pool = make_pool(now=now)
    return pool, make_runnable(now=now, pool=pool), make_customer(now=now), make_worker(pool, now=now)


def run(world: tuple[Any, ...], at: datetime, *, wait_s: float = 1, run_s: float = 2, failure: str = "", who: Any = None) -> Job:
    pool, workflow, customer, worker = world
    job = submit(who or customer, workflow, now=at - timedelta(seconds=wait_s + run_s))
    queue.claim(worker, now=at - timedelta(seconds=run_s))
    outcome = "failed" if failure else "succeeded"
    queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion(outcome=outcome, failure_class=failure, timings={"busy_s": run_s}), now=at)
    return job


def rows() -> list[dict[str, Any]]:
    return list(MinuteRollup.objects.order_by("minute", "customer").values())


def test_rows_add_up_to_the_jobs(world: tuple[Any, ...], now: datetime) -> None:
    for n in range(5):
        run(world, now + n * 40 * S)
    run(world, now + 10 * S, failure="customer_input")
    other = make_customer(now=now)
    queue.cancel(job_id=submit(other, world[1], now=now).id, now=now + 5 * S)
    submit(other, world[1], now=now, deadline_s=1)
    queue.expire_deadlines(now=now + 5 * S)
    at = now + 170 * S
    assert rollups.recompute(now=at, since=now) == len(rows()) == 4
    total = MinuteRollup.objects.aggregate(*(Sum(f) for f in ("succeeded", "failed", "failed_ours", "canceled", "expired", "price_microusd", "cost_microusd")))
    assert [total[f"{f}__sum"] for f in ("succeeded", "failed", "failed_ours", "canceled", "expired")] == [5, 1, 1, 1, 1]
    assert total["price_microusd__sum"] == sum(Job.objects.values_list("price_microusd", flat=True))
    assert total["cost_microusd__sum"] == sum(Job.objects.values_list("cost_microusd", flat=True))
    wait, run_s = Histogram(), Histogram()
    for row in rows():
        wait.merge(Histogram.from_json(row["wait"]))
        run_s.merge(Histogram.from_json(row["run"]))
    assert (wait.count, run_s.count) == (6, 5), "what never started has not waited to start; what failed has no run time"


def test_computing_again_changes_nothing(world: tuple[Any, ...], now: datetime) -> None:
    run(world, now)
    run(world, now + 61 * S)
    for at in (now + 62 * S, now + 62 * S, now + 100 * S):
        rollups.recompute(now=at)
    first = rows()
    rollups.recompute(now=now + 100 * S, since=now - timedelta(days=1))
    assert rows() == first and len(first) == 2


def test_a_job_that_was_committed_late_is_still_counted(world: tuple[Any, ...], now: datetime) -> None:
    run(world, now)
    rollups.recompute(now=now + 61 * S)
    run(world, now + 59 * S)
    rollups.recompute(now=now + 150 * S)
    assert [row["succeeded"] for row in rows()] == [2]


def test_a_loop_that_was_away_catches_up_but_not_for_ever(world: tuple[Any, ...], now: datetime) -> None:
    run(world, now)
    rollups.recompute(now=now + S)
    run(world, now + timedelta(hours=5))
    rollups.recompute(now=now + timedelta(hours=9))
    assert [row["succeeded"] for row in rows()] == [1, 1]
    run(world, now + timedelta(hours=10))
    rollups.recompute(now=now + timedelta(hours=40))
    assert len(rows()) == 2


def test_an_empty_house_has_no_rows(now: datetime) -> None:
    assert rollups.recompute(now=now) == 0
    assert not Pool.objects.exists() and rows() == []


def test_a_moment_on_the_minute_belongs_to_the_minute_it_begins(world: tuple[Any, ...], now: datetime) -> None:
    run(world, now + timedelta(seconds=59.999999))
    run(world, now + 60 * S)
    rollups.recompute(now=now + 61 * S)
    assert [(row["minute"], row["succeeded"]) for row in rows()] == [(now, 1), (now + 60 * S, 1)]
