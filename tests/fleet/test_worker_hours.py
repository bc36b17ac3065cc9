"""Worker-hours add up at every grouping to what the provider bills, are written again without harm, and one worker's page reads them."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit

from controlplane.kernel.errors import NotFound
from fleet import membership, queries_workers, queue, worker_hours
from fleet.buckets import BUCKETS
from fleet.models import Attempt, Pool, Worker, WorkerChange, WorkerHour

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def world(now: datetime, *, seed: int = 1, workers: int = 12) -> list[Pool]:
    """Two pools whose workers came, worked, were taken out and went at odd times over five hours."""
    dice = random.Random(seed)
    customer = make_customer(now=now)
    pools = [make_pool(now=now, price_per_hour_microusd=price) for price in (1_234_567, 0)]
    for pool in pools:
        workflow = make_runnable(now=now, pool=pool)
        for n in range(workers):
            ordered = now - timedelta(seconds=dice.uniform(0, 5 * 3600))
            ready = ordered + timedelta(seconds=dice.uniform(1, 300))
            gone = min(now, ready + timedelta(seconds=dice.uniform(0, 9000))) if dice.random() < 0.7 else None
            drained = gone - timedelta(seconds=dice.uniform(0, 60)) if gone and dice.random() < 0.5 else None
            worker = make_worker(
                pool, now=ordered, registered_at=ordered + (ready - ordered) / 2, ready_at=ready, drain_asked_at=drained, stopped_at=gone,
                state="stopped" if gone else "idle", price_per_hour_microusd=dice.choice([0, 999_983, 3_600_000]),
            )  # fmt: skip
            at = ready
            for _ in range(dice.randrange(8)):
                at += timedelta(seconds=dice.uniform(0, 200))
                ended = at + timedelta(seconds=dice.uniform(0, 4000))
                job = submit(customer, workflow, now=now)
                running = ended > now and n % 2 == 0
                values = {"state": "running"} if running else {"state": "succeeded", "ended_at": min(ended, now), "timings": {"load_s": dice.uniform(0, 90)}}
                Attempt.objects.create(job=job, number=1, worker=worker, claimed_at=min(at, now), **values)
                at = ended
            if n == 3:
                WorkerChange.objects.create(worker=worker, at=ready, kind="faulted")
    return pools


def billed_ms(worker: Worker, start: datetime, end: datetime) -> int:
    """What the provider bills, without any bucket: the milliseconds between order and end."""
    begin, finish = max(worker.ordered_at, start), min(worker.stopped_at or end, end)
    return max(0, int(finish.timestamp() * 1000) - int(begin.timestamp() * 1000))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hours_add_up_by_worker_pool_hour_and_day_to_what_is_billed(now: datetime, seed: int) -> None:
    now += timedelta(minutes=17, milliseconds=431)
    pools = world(now, seed=seed)
    worker_hours.recompute(now=now, since=now - 10 * HOUR)
    rows = list(WorkerHour.objects.all())
    assert len(rows) > 30
    by: dict[tuple[str, object], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for key in (("worker", row.worker_id), ("pool", row.pool_id), ("hour", row.hour), ("day", row.hour.date()), ("all", 0)):
            by[key][0] += sum(getattr(row, f"{b}_ms") for b in BUCKETS)
            by[key][1] += sum(getattr(row, f"{b}_microusd") for b in BUCKETS)
    workers = list(Worker.objects.select_related("pool"))
    for worker in workers:
        ms = billed_ms(worker, now - 10 * HOUR, now)
        price = worker.price_per_hour_microusd or worker.pool.price_per_hour_microusd
        assert abs(by["worker", worker.id][0] - ms) <= 1
        assert abs(by["worker", worker.id][1] - price * by["worker", worker.id][0] / 3_600_000) <= 0.5
    for kind in ("pool", "hour", "day", "worker"):
        assert [sum(v[i] for (k, _), v in by.items() if k == kind) for i in (0, 1)] == by["all", 0]
    for pool in pools:
        found = worker_hours.totals(pool, start=now - 10 * HOUR, end=now, now=now)
        assert [found.total_ms, found.total_microusd] == by["pool", pool.id]
    both = worker_hours.totals(None, start=now - 10 * HOUR, end=now, now=now)
    assert [both.total_ms, both.total_microusd] == by["all", 0]


def test_a_range_between_full_hours_is_cut_exactly(now: datetime) -> None:
    now += timedelta(minutes=31)
    (pool, _) = world(now)
    worker_hours.recompute(now=now, since=now - 10 * HOUR)
    cuts = [now - timedelta(minutes=m) for m in (400, 333, 200, 95, 61, 42, 3, 0)]
    parts = [worker_hours.totals(pool, start=a, end=b, now=now) for a, b in itertools.pairwise(cuts)]
    whole = worker_hours.totals(pool, start=cuts[0], end=now, now=now)
    assert sum(p.total_ms for p in parts) == whole.total_ms and sum(p.total_microusd for p in parts) == whole.total_microusd
    assert {b: sum(p.ms[b] for p in parts) for b in BUCKETS} == whole.ms == worker_hours.live(pool, start=cuts[0], end=now, now=now).ms


def test_writing_the_rows_again_changes_nothing_and_a_later_run_goes_on(now: datetime) -> None:
    world(now)
    worker_hours.recompute(now=now)
    once = sorted(WorkerHour.objects.values_list("worker_id", "hour", "total_ms", "busy_ms", "total_microusd"))
    worker_hours.recompute(now=now)
    assert sorted(WorkerHour.objects.values_list("worker_id", "hour", "total_ms", "busy_ms", "total_microusd")) == once
    later = now + timedelta(hours=3, minutes=7)  # nobody ran it meanwhile
    worker_hours.recompute(now=later)
    living = Worker.objects.filter(stopped_at__isnull=True).count()
    assert WorkerHour.objects.filter(hour=now + HOUR, total_ms=3_600_000).count() == living > 0
    worker_hours.recompute(now=now)  # the clock goes back: what is behind it is right, and forward again all is
    worker_hours.recompute(now=later)
    found = worker_hours.totals(None, start=now - 9 * HOUR, end=later, now=later)
    assert found.ms == worker_hours.live(None, start=now - 9 * HOUR, end=later, now=later).ms


def test_a_job_over_several_hours_tells_how_long_it_loaded_when_it_ends(now: datetime) -> None:
    pool = make_pool(now=now)
    worker = make_worker(pool, now=now)
    job = submit(make_customer(now=now), make_runnable(now=now, pool=pool), now=now)
    (leased,) = queue.claim(worker, now=now + timedelta(minutes=50))
    for minute in (59, 90, 130):
        worker_hours.recompute(now=now + timedelta(minutes=minute))
    assert WorkerHour.objects.get(hour=now).loading_ms == 0
    end = now + timedelta(minutes=131)
    queue.complete(worker, job_id=job.id, attempt=leased.attempt, completion=queue.Completion("succeeded", timings={"load_s": 900.0}), now=end)
    worker_hours.recompute(now=end + timedelta(seconds=30))
    assert [(r.loading_ms, r.busy_ms) for r in WorkerHour.objects.order_by("hour")] == [(600_000, 0), (300_000, 3_300_000), (0, 660_000)]


def test_many_workers_whose_jobs_reach_into_the_hour_take_no_more_queries_than_a_few(now: datetime, django_assert_max_num_queries: Any) -> None:
    pool = make_pool(now=now)
    workers = [make_worker(pool, now=now) for _ in range(12)]
    runnable, customer = make_runnable(now=now, pool=pool), make_customer(now=now)
    for worker in workers:
        job = submit(customer, runnable, now=now)
        (leased,) = queue.claim(worker, now=now + timedelta(minutes=50))
        end = now + timedelta(minutes=70)
        queue.complete(worker, job_id=job.id, attempt=leased.attempt, completion=queue.Completion("succeeded", timings={"load_s": 300.0}), now=end)
    worker_hours.recompute(now=now + timedelta(minutes=71))
    with django_assert_max_num_queries(40):
        worker_hours.recompute(now=now + timedelta(minutes=72))
    assert WorkerHour.objects.filter(hour=now, loading_ms=300_000).count() == 12


def test_a_worker_no_provider_ever_ran_costs_nothing(now: datetime) -> None:
    pool = make_pool(now=now)
    make_worker(pool, now=now, state="stopped", stopped_at=now + timedelta(seconds=10), stop_reason="never_started", registered_at=None, ready_at=None)
    assert worker_hours.recompute(now=now + timedelta(minutes=1)) == 0
    assert worker_hours.totals(pool, start=now, end=now + HOUR, now=now + HOUR).total_ms == 0


def test_an_engine_that_came_up_again_is_told_apart_from_idleness(now: datetime) -> None:
    worker = make_worker(make_pool(now=now), now=now)

    def beat(second: int, state: str, warming: bool = False) -> None:
        queue.heartbeat(Worker.objects.get(id=worker.id), state=state, warming=warming, now=now + timedelta(seconds=second))

    for second, state in ((10, "idle"), (20, "starting"), (30, "starting"), (50, "idle"), (60, "idle")):
        beat(second, state, warming=second == 30)
    assert list(WorkerChange.objects.values_list("kind", flat=True)) == ["starting", "loading", "ready"]
    found = worker_hours.totals(None, start=now, end=now + timedelta(seconds=60), now=now + timedelta(seconds=60))
    assert (found.ms["idle"], found.ms["starting"], found.ms["loading"]) == (30_000, 10_000, 20_000)


def test_one_worker_is_shown_with_its_life_in_order(now: datetime) -> None:
    pool = make_pool(now=now)
    worker = make_worker(pool, now=now, warm=["flux"])
    job = submit(make_customer(now=now), make_runnable(now=now, pool=pool), now=now)
    queue.claim(worker, now=now + timedelta(seconds=10))
    shown = queries_workers.one(worker.id, now=now + timedelta(seconds=20))
    assert shown.running == job and shown.warm == ["flux"] and [a.job_id for a in shown.attempts] == [job.id]
    membership.cordon(worker, actor="olga", reason="noisy fan", now=now + timedelta(seconds=30))
    membership.stopped(worker, reason="crash", message="It burnt.", engine_log=["last", "words"], now=now + timedelta(seconds=40))
    shown = queries_workers.one(worker.id, now=now + timedelta(seconds=99))
    assert [m.kind for m in shown.timeline][-2:] == ["cordoned", "stopped"] and shown.timeline[-1].note == "crash It burnt."
    assert shown.boot_log == ["last", "words"] and shown.running is None
    assert (shown.split.ms["idle"], shown.split.ms["busy"], shown.split.total_microusd) == (10_000, 30_000, 40_000)
    assert [(s.bucket, s.seconds) for s in shown.stretches] == [("idle", 10), ("busy", 30)]
    with pytest.raises(NotFound):
        queries_workers.one(job.id, now=now)
