"""Changed terms on a pool's own past, before they are saved."""

import time
from datetime import timedelta

import numpy as np
import pytest

from controlplane.kernel.errors import Invalid
from fleet import history
from fleet.models import CapacityMinute, DemandMinute, Pool
from fleet.planning import replay
from tests.fleet import planning_rows as rows

pytestmark = pytest.mark.django_db


def test_the_past_is_read_job_by_job_with_the_time_each_took(now):
    pool, *_ = rows.pool_with_past(now=now, jobs=12, every_s=60, took_s=30)
    came = history.of_pool(pool, start=now - timedelta(hours=1), end=now, now=now)
    assert came.jobs == 12 and came.merged == 1
    assert np.allclose(came.arrivals, [3600 - 60 * (12 - i) for i in range(12)])
    assert np.allclose(came.service, 30)
    assert came.cold_s == (45.0,)


def test_a_job_that_has_not_ended_counts_as_such_jobs_take(now):
    pool, workflow, customer = rows.pool_with_past(now=now, jobs=5, took_s=20)
    rows.waits(customer, workflow, at=now - timedelta(seconds=10))
    came = history.of_pool(pool, start=now - timedelta(hours=1), end=now, now=now)
    assert came.jobs == 6 and set(came.service.round(3)) == {20.0}


def test_another_pools_jobs_are_not_in_it(now):
    rows.pool_with_past(now=now, jobs=5)
    pool, *_ = rows.pool_with_past(now=now, jobs=3)
    assert history.of_pool(pool, start=now - timedelta(hours=1), end=now, now=now).jobs == 3


def test_more_workers_wait_less_and_cost_more_and_the_sentence_says_both(now):
    pool, *_ = rows.pool_with_past(now=now, jobs=60, every_s=60, took_s=170, base=1, max=2, policy="threshold")
    found = replay.of_pool(pool, {"base": 3, "max": 4}, hours=1, now=now)
    assert found.after.within > found.before.within
    assert found.after.cost_microusd > found.before.cost_microusd
    assert found.jobs == 60
    assert found.said().startswith("Would have cost $") and "within 60 s instead of" in found.said()
    assert "$" not in found.said(money_shown=False) and "worker-hours" in found.said(money_shown=False)
    assert "cost_microusd" not in found.as_json(money_shown=False)["after"]
    assert Pool.objects.get(id=pool.id).base == 1, "nothing is saved"


def test_the_same_terms_make_no_difference(now):
    pool, *_ = rows.pool_with_past(now=now, jobs=20)
    found = replay.of_pool(pool, {}, hours=1, now=now)
    assert found.before == found.after and found.saved_microusd == 0
    assert "the same" in found.said() and "as before" in found.said()


def test_another_target_is_the_measure_for_both_sides(now):
    pool, *_ = rows.pool_with_past(now=now, jobs=30, every_s=30, took_s=60, base=1, max=1)
    found = replay.of_pool(pool, {"target_s": 10.0}, hours=1, now=now)
    assert found.target_s == 10.0
    assert found.before.within == pytest.approx(found.after.within, abs=0.2) and found.before.within < 0.5


def test_a_pool_without_a_past_says_what_it_assumes(now):
    pool = rows.factories.make_pool(now=now - timedelta(hours=5), base=1, max=2)
    found = replay.of_pool(pool, {"base": 2}, hours=4, now=now)
    assert found.jobs == 0 and found.after.cost_microusd == 2 * found.before.cost_microusd
    assert any("No job of this pool has been measured" in n for n in found.notes)
    assert any("a start counts as 60 s" in n for n in found.notes)
    assert "no job came" in found.said()


def test_it_starts_with_the_workers_there_were(now):
    pool, *_ = rows.pool_with_past(now=now, jobs=1, base=0, max=8, policy="request-count", knobs={"idle_s": 100_000})
    CapacityMinute.objects.create(pool=pool, minute=now - timedelta(hours=1), ready=5)
    found = replay.of_pool(pool, {}, hours=1, now=now)
    assert found.before.peak == 5 and found.before.gpu_hours == pytest.approx(5, rel=0.02)


@pytest.mark.parametrize("changes", [{"base": 9}, {"policy": "nope"}, {"knobs": {"nope": 1}}, {"target_s": 0}, {"colour": 1}])
def test_terms_that_cannot_be_are_refused_as_on_saving(now, changes):
    pool, *_ = rows.pool_with_past(now=now, jobs=1)
    with pytest.raises(Invalid):
        replay.of_pool(pool, changes, hours=1, now=now)


@pytest.mark.parametrize("hours", [0, -1, 10_000])
def test_a_stretch_that_is_no_stretch_is_refused(now, hours):
    pool = rows.factories.make_pool(now=now)
    with pytest.raises(Invalid, match="hours"):
        replay.of_pool(pool, {}, hours=hours, now=now)


def test_many_jobs_are_drawn_from_minutes_and_keep_their_number_and_work(now):
    pool, workflow, _ = rows.pool_with_past(now=now, jobs=3, took_s=10, max=40)
    counts = [30 if i % 2 else 10 for i in range(1440)]
    DemandMinute.objects.all().delete()
    rows.minutes(pool, workflow, start=now - timedelta(hours=24), counts=counts)
    came = history.of_pool(pool, start=now - timedelta(hours=24), end=now, now=now)
    assert came.jobs == sum(counts) == len(came.arrivals) == 28_800
    assert np.histogram(came.arrivals, bins=1440, range=(0, 86_400))[0].tolist() == counts
    assert came.work_s == pytest.approx(288_000)
    again = history.of_pool(pool, start=now - timedelta(hours=24), end=now, now=now)
    assert (again.arrivals == came.arrivals).all(), "the same question has the same answer"


def test_a_very_busy_day_is_merged_says_so_and_is_done_in_time(now):
    pool, workflow, _ = rows.pool_with_past(now=now, jobs=3, took_s=5, max=60, base=4)
    DemandMinute.objects.all().delete()
    counts = [200 + (i % 7) * 20 for i in range(1440)]
    rows.minutes(pool, workflow, start=now - timedelta(hours=24), counts=counts)
    came = history.of_pool(pool, start=now - timedelta(hours=24), end=now, now=now)
    assert came.jobs == sum(counts) and came.merged == 4
    assert len(came.arrivals) == -(-came.jobs // 4)
    assert came.work_s == pytest.approx(5 * came.jobs)
    assert any("stands for 4" in note for note in came.notes)
    began = time.perf_counter()
    found = replay.of_pool(pool, {"base": 10}, hours=24, now=now)
    assert time.perf_counter() - began < 20, "about 2 s on two free cores"
    assert found.jobs == sum(counts)
