"""Fair order: shares by weight, no starvation behind a batch, tags that never go back."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime, timedelta

import pytest
from factories import make_customer, make_plan, make_pool, make_runnable, make_worker, submit
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import race

from controlplane.kernel.ids import uuid7
from fleet import fairness, loops, queue
from fleet.models import FairShare, Job, Pool


def serve(weights: list[int], sizes: list[float], rounds: int) -> list[float]:
    """Work each of several always-busy customers got when `rounds` jobs were served by start tag."""
    finish = [0] * len(weights)
    heads = [fairness.start_tag(virtual_time=0, finish_tag=0)] * len(weights)
    served = [0.0] * len(weights)
    for _ in range(rounds):
        who = min(range(len(weights)), key=lambda i: (heads[i], i))
        virtual = heads[who]
        served[who] += sizes[who]
        finish[who] = heads[who] + fairness.work(expected_s=sizes[who], weight=weights[who])
        heads[who] = fairness.start_tag(virtual_time=virtual, finish_tag=finish[who])
    return served


@settings(max_examples=40)
@given(weight=st.integers(1, 500), small=st.floats(0.05, 20), large=st.floats(0.05, 20))
def test_twice_the_weight_is_twice_the_work(weight: int, small: float, large: float) -> None:
    one, two = serve([weight, 2 * weight], [small, large], 3_000)
    assert abs(two / 2 - one) <= 1.001 * (small + large), "a job of each, however long it goes on"


@settings(max_examples=40)
@given(weights=st.lists(st.integers(1, 1000), min_size=2, max_size=6), sizes=st.lists(st.floats(0.01, 60), min_size=6, max_size=6))
def test_nobody_gets_further_ahead_than_a_job_of_each(weights: list[int], sizes: list[float]) -> None:
    served = serve(weights, sizes, 600)
    shares = [work / weight for work, weight in zip(served, weights, strict=True)]
    slack = max(size / weight for size, weight in zip(sizes, weights, strict=False))
    assert max(shares) - min(shares) <= 2.001 * slack


@given(virtual=st.integers(0, 2**60), finish=st.integers(0, 2**60))
def test_a_start_tag_is_behind_both_clocks_and_never_the_front(virtual: int, finish: int) -> None:
    tag = fairness.start_tag(virtual_time=virtual, finish_tag=finish)
    assert tag >= max(virtual, finish) and tag > fairness.FRONT


@pytest.mark.parametrize(("expected_s", "weight"), [(0, 1), (-1, 1), (1e-12, 10**9), (1, 0), (1, -3)])
def test_every_job_counts_for_something(expected_s: float, weight: int) -> None:
    assert fairness.work(expected_s=expected_s, weight=weight) >= 1


@pytest.mark.django_db
@pytest.mark.parametrize("warm", [[], ["x"]])
def test_a_single_call_is_served_within_the_first_few_though_five_thousand_wait(now: datetime, warm: list[str]) -> None:
    pool = make_pool(now=now)
    workflow = make_runnable(now=now, pool=pool)
    heavy, other, newcomer = (make_customer(now=now) for _ in range(3))
    first = submit(heavy, workflow, now=now)
    step = FairShare.objects.get(customer=heavy).finish_tag - first.fair_tag
    template = Job.objects.filter(id=first.id).values().get()
    Job.objects.bulk_create([Job(**template | {"id": uuid7(), "fair_tag": first.fair_tag + n * step}) for n in range(1, 5_000)], batch_size=1_000)
    FairShare.objects.filter(customer=heavy).update(finish_tag=first.fair_tag + 5_000 * step)
    for _ in range(3):
        submit(other, workflow, now=now)
    worker = make_worker(pool, now=now)
    for _ in range(30):
        queue.claim(worker, limit=16, now=now)
    call = submit(newcomer, workflow, now=now)
    later = now + timedelta(minutes=5)
    Job.objects.filter(id=call.id).update(queued_at=later)  # while the batch has waited for minutes
    served = [a.job_id for _ in range(6) for a in queue.claim(worker, warm=warm, now=later)]
    assert call.id in served[:3]
    assert len(served) == 6, "and the batch goes on"


@pytest.mark.django_db
def test_two_busy_customers_share_by_the_weight_of_their_plans(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow = make_runnable(now=now, pool=pool)
    light, heavy = make_customer(now=now), make_customer(now=now, plan=make_plan(now=now, weight=200))
    for _ in range(40):
        submit(light, workflow, now=now)
    for _ in range(80):
        submit(heavy, workflow, now=now)
    worker = make_worker(pool, now=now)
    jobs = [a.job_id for _ in range(12) for a in queue.claim(worker, limit=5, now=now)]
    who = dict(Job.objects.values_list("id", "customer_id"))
    counts = Counter(who[job] for job in jobs)
    assert abs(counts[heavy.id] - 2 * counts[light.id]) <= 2, counts


@pytest.mark.django_db(transaction=True)
def test_tags_of_a_customer_are_all_different_and_rise_even_when_submitted_at_once(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow = make_runnable(now=now, pool=pool)
    customer = make_customer(now=now)
    results = race(16, lambda _: [submit(customer, workflow, now=now).fair_tag for _ in range(3)])
    assert all(isinstance(r, list) and r == sorted(r) for r in results), results
    tags = sorted(tag for result in results for tag in result)
    step = fairness.work(expected_s=10, weight=100)
    assert [b - a for a, b in itertools.pairwise(tags)] == [step] * 47
    assert FairShare.objects.get().finish_tag == tags[-1] + step


@pytest.mark.django_db
def test_who_comes_after_a_quiet_spell_gains_nothing_by_having_been_away(now: datetime) -> None:
    pool = make_pool(now=now)
    workflow = make_runnable(now=now, pool=pool)
    busy, away = make_customer(now=now), make_customer(now=now)
    worker = make_worker(pool, now=now)
    for _ in range(30):
        submit(busy, workflow, now=now)
    queue.claim(worker, limit=30, now=now)
    from controlplane.kernel.loops import Tick

    class Free(Tick):
        def fence(self) -> None:
            return None

    loops._fair_clock(Free(now, 1))
    assert Pool.objects.get(id=pool.id).virtual_time == max(Job.objects.values_list("fair_tag", flat=True))
    fresh = [submit(away, workflow, now=now).id for _ in range(10)]
    again = submit(busy, workflow, now=now).id
    order = [a.job_id for a in queue.claim(worker, limit=11, now=now)]
    assert order.index(again) <= 2, "ten jobs of a newcomer all went before one of a regular"
    assert set(order) == {*fresh, again}


@pytest.mark.django_db
def test_tags_of_one_pool_say_nothing_in_another(now: datetime) -> None:
    customer = make_customer(now=now)
    first, second = make_runnable(now=now), make_runnable(now=now)
    for _ in range(5):
        submit(customer, first, now=now)
    assert submit(customer, second, now=now).fair_tag == fairness.FRONT + 1
