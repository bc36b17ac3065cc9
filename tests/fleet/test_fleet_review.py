"""Faults found by reading the fleet as whoever is on call, as its accountant and as its customers would; one test each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.kernel.loops import LostLead, Tick
from fleet import decisions, launching, loops, observing, quotes, savings, scaling, tasks, worker_hours, workers
from fleet.models import Pool, PoolOffer, ScalingDecision, Worker, WorkerHour
from fleet.providers.base import Observed, Ref, Unavailable
from tests import factories

pytestmark = pytest.mark.django_db
ORDERED: dict[str, Any] = {"state": "ordered", "registered_at": None, "ready_at": None, "idle_since": None, "seen_at": None}


def fence() -> None:
    """Nobody else leads."""


def test_an_hour_of_a_worker_that_never_ran_is_taken_out_of_the_books_again(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="kubernetes")
    worker = factories.make_worker(pool, now=now, **ORDERED)
    later = now + timedelta(minutes=4)
    worker_hours.recompute(now=later)
    assert WorkerHour.objects.get().starting_microusd > 0
    Worker.objects.filter(id=worker.id).update(state="stopped", stopped_at=later, stop_reason="no_capacity")
    worker_hours.recompute(now=later + timedelta(minutes=1))
    assert not WorkerHour.objects.exists()


def test_workers_no_provider_ever_ran_are_not_spent_money(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="kubernetes")
    gone = now + timedelta(minutes=5)
    factories.make_worker(pool, now=now, **{**ORDERED, "state": "stopped"}, stopped_at=gone, stop_reason="no_capacity")
    assert observing.spent(pool, since=now, now=gone) == 0
    assert savings.spent(pool, start=now, end=gone) == 0


def test_what_an_idle_worker_cost_is_still_known_after_the_sweep(now: datetime) -> None:
    pool = factories.make_pool(now=now)
    gone = now + timedelta(minutes=30)
    factories.make_worker(pool, now=now, state="stopped", stopped_at=gone, stop_reason="drained")
    worker_hours.recompute(now=gone, since=now)
    before = worker_hours.totals(pool, start=worker_hours.floor(now), end=worker_hours.floor(now) + timedelta(hours=2), now=now + timedelta(days=40))
    assert before.total_microusd > 0
    tasks.sweep(now=now + timedelta(days=40))
    after = worker_hours.totals(pool, start=worker_hours.floor(now), end=worker_hours.floor(now) + timedelta(hours=2), now=now + timedelta(days=40))
    assert after.total_microusd == before.total_microusd


class Slow:
    """A provider that takes its time to answer, then says that it is down."""

    orders, counted, knows = True, False, True

    def __init__(self, clock: list[float], takes_s: float) -> None:
        self.clock, self.takes_s = clock, takes_s

    def launch(self, worker: Worker) -> Ref:
        self.clock[0] += self.takes_s
        raise Unavailable("It did not answer.")

    def observe(self, pool: Pool) -> Observed:
        return Observed()


def test_a_provider_that_is_slow_to_say_no_is_left_alone_for_as_long_as_one_that_is_quick(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = factories.make_pool(now=now, provider="docker", base=1)
    clock = [100.0]
    monkeypatch.setattr(launching, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    provider: Any = Slow(clock, 40.0)
    worker = factories.make_worker(pool, now=now, **ORDERED)
    launching.launch([worker], provider, now=now)
    after = now + timedelta(seconds=41)
    assert observing.of(pool, provider=provider, now=after).limits.rise == 0


def test_a_worker_whose_launch_still_runs_is_not_ended_as_never_launched(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="docker")
    worker = factories.make_worker(pool, now=now, **ORDERED)
    # Sixteen are made eight at a time, and where GPUs are given out one by one.
    provider: Any = Slow([0.0], 0.0)
    assert workers.look_after(pool, provider=provider, fence=fence, now=now + timedelta(seconds=45)) == []
    assert Worker.objects.get(id=worker.id).state == "ordered"
    assert "never_started" in workers.look_after(pool, provider=provider, fence=fence, now=now + timedelta(minutes=3))[0]


def test_the_budget_counts_what_the_kinds_of_machine_cost_not_what_the_pool_says(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="docker", price_per_hour_microusd=0, budget_per_hour_microusd=4_000_000, max=20)
    PoolOffer.objects.create(pool=pool, rank=1, gpu="H100", price_per_hour_microusd=2_000_000)
    found = observing.of(pool, provider=Slow([0.0], 0.0), now=now)  # type: ignore[arg-type]
    assert found.limits.budget_workers == 2


def test_a_decision_costs_what_the_workers_it_orders_cost(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="docker", base=1, max=2, price_per_hour_microusd=1_000_000)
    PoolOffer.objects.create(pool=pool, rank=1, gpu="H100", price_per_hour_microusd=2_500_000)
    scaling.step(pool, provider=Slow([0.0], 0.0), fence=fence, epoch=1, now=now)  # type: ignore[arg-type]
    assert ScalingDecision.objects.get(pool=pool).cost_change_microusd == 2_500_000


def test_a_pool_whose_provider_holds_up_every_round_does_not_keep_the_others_from_theirs(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_cut_short", {})
    slow, other = factories.make_pool(now=now, slug="a-slow"), factories.make_pool(now=now, slug="b-other")
    seen: list[str] = []

    def round_() -> None:
        def step(pool: Pool, fence: Callable[[], None]) -> str:
            seen.append(pool.slug)
            if pool.id == slow.id:
                raise LostLead("it took longer than the lease")
            return ""

        with suppress(LostLead):
            loops._each_pool(Tick(now, 1, "autoscale"), step)

    for _ in range(3):
        round_()
    assert other.slug in seen


def test_a_quote_does_not_tell_a_customer_how_much_others_send(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="local", base=1, max=2)
    workflow, customer = factories.make_runnable(now=now, pool=pool), factories.make_customer(now=now)
    quote = quotes.make(customer=customer, workflow=workflow, version=workflow.channels.get().version, jobs=3, now=now).quote
    assert "others_per_hour" in quote.basis  # operators are told
    said = quotes.as_json(quote, now=now)
    assert "others" not in str(said["basis"]) and pool.slug not in str(said)


def test_a_clock_that_was_set_back_does_not_make_a_decision_a_tick(now: datetime) -> None:
    pool = factories.make_pool(now=now, provider="docker", base=0, max=2)
    provider: Any = Slow([0.0], 0.0)
    ahead = now + timedelta(hours=1)
    ScalingDecision.objects.create(
        pool=pool, at=ahead, last_seen_at=ahead, policy=pool.policy, inputs={}, action="up", wanted=1, applied=1, reason="The clock was wrong.", epoch=1
    )
    for second in range(5):
        scaling.step(pool, provider=provider, fence=fence, epoch=1, now=now + timedelta(seconds=second))
    assert ScalingDecision.objects.filter(pool=pool).count() == 2
    for second in range(5):
        decisions.note_failed(pool, RuntimeError("x"), epoch=1, now=now + timedelta(seconds=10 + second))
    assert ScalingDecision.objects.filter(pool=pool).count() == 3
