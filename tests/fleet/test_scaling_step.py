"""The scaler on the database: rows written ahead, equal decisions folded, crash loops stopped, workers looked after."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.kernel.errors import Conflict
from controlplane.kernel.loops import LostLead
from controlplane.kernel.models import AuditEntry
from fleet import queue, scaling, workers
from fleet.models import Job, Pool, ScalingDecision, Worker
from fleet.providers.base import ProviderError
from tests import factories

pytestmark = pytest.mark.django_db


@dataclass
class FakeProvider:
    """Keeps processes as names; each one lives until told otherwise."""

    running: dict[str, bool] = field(default_factory=dict)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    refuse: bool = False
    orders: bool = True

    def order(self, worker: Worker) -> dict[str, Any]:
        assert Worker.objects.filter(instance=worker.instance, state="ordered").exists(), "the row comes first"
        if self.refuse:
            raise ProviderError("No machine is free.")
        self.running[worker.instance] = True
        return {"name": worker.instance}

    def find(self, instance: str) -> dict[str, Any] | None:
        return {"name": instance} if instance in self.running else None

    def alive(self, ref: dict[str, Any]) -> bool | None:
        return self.running.get(ref.get("name", ""), False) if ref else None

    def stop(self, ref: dict[str, Any], *, force: bool = False) -> None:
        self.stopped.append((ref.get("name", ""), force))

    def known(self) -> dict[str, dict[str, Any]]:
        return {name: {"name": name} for name in self.running}

    def forget(self, instance: str) -> None:
        self.running.pop(instance, None)


def nothing() -> None:
    return None


def step(pool: Pool, provider: FakeProvider, now: datetime) -> Any:
    return scaling.step(Pool.objects.get(id=pool.id), provider=provider, fence=nothing, epoch=1, now=now)


def make_pool(now: datetime, **fields: Any) -> Pool:
    return factories.make_pool(now=now, provider="local", base=2, max=4, **fields)


def test_an_empty_pool_is_brought_to_its_base_and_the_row_says_what_it_costs(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    step(pool, provider, now)
    assert Worker.objects.filter(pool=pool, state="ordered").count() == 2 == len(provider.running)
    row = ScalingDecision.objects.get()
    assert (row.action, row.applied, row.cost_change_microusd, row.inputs["queue"]) == ("up", 2, 7_200_000, 0)
    assert "was ordered" in row.outcome


def test_the_same_decision_again_is_the_same_row(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    for _ in range(2):
        factories.make_worker(pool, now=now)
    for second in range(5):
        step(pool, provider, now + timedelta(seconds=second))
    row = ScalingDecision.objects.get()
    assert (row.action, row.repeats, row.at, row.last_seen_at) == ("hold", 5, now, now + timedelta(seconds=4))


def test_a_leader_that_lost_its_lead_orders_nothing(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()

    def lost() -> None:
        raise LostLead

    with pytest.raises(LostLead):
        scaling.step(pool, provider=provider, fence=lost, epoch=1, now=now)
    assert not provider.running and not Worker.objects.exists() and not ScalingDecision.objects.exists()


def test_a_worker_idle_too_long_is_asked_to_leave_and_gets_no_more_jobs(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    made = [factories.make_worker(pool, now=now - timedelta(seconds=300 + n), provider_ref={"name": f"p{n}"}) for n in range(3)]
    step(pool, provider, now)
    oldest = Worker.objects.get(id=made[2].id)
    assert (oldest.state, oldest.drain_asked_at) == ("draining", now)
    assert provider.stopped == [("p2", False)]
    row = ScalingDecision.objects.get()
    assert (row.action, row.cost_change_microusd) == ("down", -3_600_000)
    assert queue.claim(oldest, now=now) == []


def test_a_pool_nobody_can_start_workers_for_halts_and_says_so_until_an_operator_resumes_it(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(refuse=True)
    for second in range(0, 60):
        step(pool, provider, now + timedelta(seconds=second))
    assert 3 <= Worker.objects.filter(pool=pool, stop_reason="order_failed").count() <= 4
    pool.refresh_from_db()
    assert pool.halted_at is not None and "in a row" in pool.halted_reason
    assert ScalingDecision.objects.first().action == "halted"

    provider.refuse = False
    later = now + timedelta(seconds=90)
    step(pool, provider, later)
    assert not provider.running
    scaling.resume(pool, actor="olga", now=later)
    assert AuditEntry.objects.get(action="pool.resume").actor == "olga"
    step(pool, provider, later + timedelta(seconds=1))
    assert len(provider.running) == 2
    with pytest.raises(Conflict):
        scaling.resume(pool, actor="olga", now=later)


def test_workers_that_die_while_starting_are_ordered_ever_more_slowly(now: datetime) -> None:
    pool, provider = make_pool(now, slug="flaky"), FakeProvider()
    Pool.objects.filter(id=pool.id).update(base=1)
    ordered_at: list[int] = []
    for second in range(0, 20):
        at = now + timedelta(seconds=second)
        before = Worker.objects.count()
        step(pool, provider, at)
        if Worker.objects.count() > before:
            ordered_at.append(second)
        for instance in provider.running:
            provider.running[instance] = False
        workers.look_after(pool, provider=provider, fence=nothing, now=at)
    assert ordered_at == [0, 2, 6]
    assert Pool.objects.get(id=pool.id).halted_at == now + timedelta(seconds=7)


def test_a_worker_that_became_ready_clears_the_count_of_failed_starts(now: datetime) -> None:
    pool = make_pool(now)
    for n in range(3):
        ended = now - timedelta(seconds=100 + n)
        factories.make_worker(pool, now=ended, state="stopped", stopped_at=ended, stop_reason="vanished", ready_at=None)
    assert scaling.observe(pool, now=now).start_failures == 3
    factories.make_worker(pool, now=now - timedelta(seconds=50))
    assert scaling.observe(pool, now=now).start_failures == 0


def test_a_worker_that_had_done_work_before_it_died_is_no_failed_start(now: datetime) -> None:
    pool = make_pool(now)
    factories.make_worker(pool, now=now - timedelta(seconds=20), state="stopped", stopped_at=now, stop_reason="vanished", jobs_done=3)
    assert scaling.observe(pool, now=now).start_failures == 0


def test_a_worker_handed_a_job_at_its_first_claim_counts_as_ready(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"p": True})
    workflow = factories.make_runnable(now=now, pool=pool)
    worker = factories.make_worker(pool, now=now, provider_ref={"name": "p"}, ready_at=None, idle_since=None, state="starting")
    factories.submit(factories.make_customer(now=now), workflow, now=now)
    queue.claim(worker, now=now)
    workers.look_after(pool, provider=provider, fence=nothing, now=now)
    worker.refresh_from_db()
    assert worker.ready_at == now


def test_a_vanished_process_gives_its_job_back_at_once(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"p": False})
    workflow = factories.make_runnable(now=now, pool=pool)
    worker = factories.make_worker(pool, now=now, provider_ref={"name": "p"})
    job = factories.submit(factories.make_customer(now=now), workflow, now=now)
    queue.claim(worker, now=now)
    said = workers.look_after(pool, provider=provider, fence=nothing, now=now)
    worker.refresh_from_db()
    job = Job.objects.get(id=job.id)
    assert (worker.state, worker.stop_reason, job.status, job.attempt) == ("stopped", "vanished", "queued", 1)
    assert said == [f"{worker.name} vanished"]


def test_a_silent_worker_is_lost_and_its_process_ended(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"p": True})
    worker = silent_worker(pool, now=now - timedelta(seconds=31))
    factories.make_worker(pool, now=now)
    workers.look_after(pool, provider=provider, fence=nothing, now=now)
    worker.refresh_from_db()
    assert worker.state == "lost" and provider.stopped == [("p", True)]


def test_when_nobody_is_heard_it_is_more_likely_us_and_nobody_is_given_up_at_once(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"p": True})
    worker = silent_worker(pool, now=now)
    workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=60))
    worker.refresh_from_db()
    assert worker.state == "idle" and provider.stopped == []
    workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=61))
    worker.refresh_from_db()
    assert worker.state == "lost" and provider.stopped == [("p", True)]


def silent_worker(pool: Pool, *, now: datetime) -> Worker:
    worker = factories.make_worker(pool, now=now, provider_ref={"name": "p"})
    Worker.objects.filter(id=worker.id).update(instance="p")
    return worker


def test_a_start_that_takes_too_long_is_given_up(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    step(pool, provider, now)
    workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=119))
    assert not Worker.objects.filter(stop_reason="start_timeout").exists()
    workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=121))
    assert Worker.objects.filter(stop_reason="start_timeout").count() == 2 == len(provider.stopped)


def test_a_row_without_its_process_is_found_again_or_given_up(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"kept": True})
    early = now - timedelta(seconds=11)
    for instance in ("kept", "never"):
        Worker.objects.create(pool=pool, name=instance, instance=instance, state="ordered", state_since=early, ordered_at=early)
    workers.look_after(pool, provider=provider, fence=nothing, now=now)
    assert Worker.objects.get(instance="kept").provider_ref == {"name": "kept"}
    assert Worker.objects.get(instance="never").stop_reason == "never_started"


def test_a_process_nobody_knows_is_ended_and_a_dead_one_forgotten(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"stray": True, "dead": False})
    workers.look_after(pool, provider=provider, fence=nothing, now=now)
    assert provider.stopped == [("stray", True)] and "dead" not in provider.running


def test_a_drained_worker_that_left_is_stopped_as_drained(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(running={"p": False})
    worker = factories.make_worker(pool, now=now, state="draining", drain_asked_at=now, provider_ref={"name": "p"})
    workers.look_after(pool, provider=provider, fence=nothing, now=now)
    worker.refresh_from_db()
    assert (worker.state, worker.stop_reason, worker.stop_message) == ("stopped", "drained", "")
