"""Arrivals by the minute, what jobs take, and how fast they come: what sizing rests on."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from fleet import demand, job_times, queue
from fleet.models import DemandMinute, Job
from tests import factories

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def test_arrivals_are_counted_by_minute_and_workflow_and_the_same_again_changes_nothing(now: datetime) -> None:
    pool, customer = factories.make_pool(now=now), factories.make_customer(now=now)
    one, other = (factories.make_runnable(now=now, pool=pool) for _ in range(2))
    for workflow, at in ((one, now), (one, now + timedelta(seconds=59)), (one, now + MINUTE), (other, now)):
        factories.submit(customer, workflow, now=at)
    smoke = factories.submit(customer, one, now=now)
    Job.objects.filter(id=smoke.id).update(source=Job.SMOKE)
    for _ in range(2):
        demand.recompute(now=now + MINUTE)
        found = set(DemandMinute.objects.values_list("workflow_id", "minute", "arrivals"))
        assert found == {(one.id, now, 2), (one.id, now + MINUTE, 1), (other.id, now, 1)}


def test_a_loop_that_stood_still_counts_what_it_missed(now: datetime) -> None:
    pool, customer = factories.make_pool(now=now), factories.make_customer(now=now)
    workflow = factories.make_runnable(now=now, pool=pool)
    factories.submit(customer, workflow, now=now)
    demand.recompute(now=now)
    factories.submit(customer, workflow, now=now + 30 * MINUTE)
    demand.recompute(now=now + 60 * MINUTE)
    assert DemandMinute.objects.filter(minute=now + 30 * MINUTE).exists()


def test_rates_take_the_minute_that_has_begun_with_the_rest_of_the_one_that_leaves(now: datetime) -> None:
    pool = factories.make_pool(now=now)
    workflow = factories.make_workflow(now=now, pool=pool)
    for back, arrivals in ((0, 30), (1, 60), (5, 300), (10, 600), (60, 3600)):
        DemandMinute.objects.create(pool=pool, workflow=workflow, minute=now - back * MINUTE, arrivals=arrivals)
    found = demand.rates(pool, now=now + timedelta(seconds=30))
    assert found.m1 == pytest.approx((30 + 60 / 2) / 60)
    assert found.m5 == pytest.approx((30 + 60 + 300 / 2) / 300)
    assert found.m10 == pytest.approx((30 + 60 + 300 + 600 / 2) / 600)
    assert found.h1 == pytest.approx((30 + 60 + 300 + 600 + 3600 / 2) / 3600)


def test_what_jobs_take_is_measured_by_version_and_mixed_by_what_waits(now: datetime) -> None:
    pool, customer = factories.make_pool(now=now), factories.make_customer(now=now)
    worker = factories.make_worker(pool, now=now)
    quick, slow = (factories.make_runnable(now=now, pool=pool) for _ in range(2))
    for workflow, seconds in ((quick, 2), (quick, 4), (slow, 30), (slow, 30)):
        job = factories.submit(customer, workflow, now=now)
        queue.claim(worker, now=now)
        queue.complete(worker, job_id=job.id, attempt=1, completion=queue.Completion("succeeded"), now=now + timedelta(seconds=seconds))
    times = job_times.of_pool(pool, now=now)
    versions = {w.slug: w.versions.get().id for w in (quick, slow)}
    assert times.by_version[versions[quick.slug]].mean_s == pytest.approx(3) and times.by_version[versions[slow.slug]].mean_s == pytest.approx(30)
    assert times.by_version[versions[slow.slug]].cv2 == pytest.approx(0) and times.all.samples == 4
    assert times.work_s({versions[quick.slug]: 10, versions[slow.slug]: 1}) == pytest.approx(60)
    mixed = times.mix({versions[quick.slug]: 1, versions[slow.slug]: 1})
    assert mixed.mean_s == pytest.approx(16.5) and mixed.cv2 > 0.5
    assert times.work_s({factories.some_id(): 2}) == pytest.approx(2 * times.all.mean_s), "a version never measured counts as the pool's average"


def test_a_cold_start_is_from_the_order_to_the_first_claim(now: datetime) -> None:
    pool = factories.make_pool(now=now)
    assert job_times.of_pool(pool, now=now).cold.samples == 0
    job_times.forget()
    for seconds in (10, 20, 30):
        factories.make_worker(pool, now=now - timedelta(seconds=seconds), ready_at=now)
    cold = job_times.of_pool(pool, now=now).cold
    assert (cold.p50_s, cold.p90_s, cold.samples) == (20, 30, 3)
