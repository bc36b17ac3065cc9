"""The scaler on the database: rows written ahead, equal decisions folded, crash loops stopped, workers looked after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.kernel import loops as loops_kernel
from controlplane.kernel.errors import Conflict, Invalid
from controlplane.kernel.loops import LostLead, Tick
from controlplane.kernel.models import AuditEntry
from fleet import loops, observing, pools, queue, scaling, workers
from fleet.models import CapacityMinute, Job, PolicyRevision, Pool, PoolOffer, ScalingDecision, Worker
from fleet.providers.base import Instance, NoCapacity, Observed, ProviderError, Refused, Unavailable
from tests import factories

pytestmark = pytest.mark.django_db


@dataclass
class FakeProvider:
    """Keeps processes as names; each one lives until told otherwise."""

    running: dict[str, bool] = field(default_factory=dict)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    refuse: ProviderError | None = None
    down: bool = False
    failing: dict[str, str] = field(default_factory=dict)
    orders: bool = True
    counted: bool = False
    knows: bool = True

    def observe(self, pool: Pool) -> Observed:
        if self.down:
            raise Unavailable("The engine does not answer.")
        return Observed(
            {
                name: Instance(name, {"name": name}, "running" if alive else "ended", failed=name in self.failing, why=self.failing.get(name, ""))
                for name, alive in self.running.items()
            }
        )

    def launch(self, worker: Worker) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        self.running[worker.instance] = True
        return {"name": worker.instance}

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise Refused("one by one")

    def stop(self, ref: dict[str, Any], *, force: bool = False) -> None:
        self.stopped.append((ref.get("name", ""), force))

    def boot_log(self, ref: dict[str, Any], *, lines: int = 40) -> list[str]:
        return [f"last words of {ref.get('name')}"]

    def forget(self, instance: str, ref: dict[str, Any]) -> None:
        self.running.pop(instance, None)

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd


def nothing() -> None:
    return None


def step(pool: Pool, provider: FakeProvider, now: datetime) -> Any:
    return scaling.step(Pool.objects.get(id=pool.id), provider=provider, fence=nothing, epoch=1, now=now)


def make_pool(now: datetime, **fields: Any) -> Pool:
    terms: dict[str, Any] = {"provider": "local", "base": 2, "max": 4, "policy": "threshold"}
    return factories.make_pool(now=now, **(terms | fields))


def test_an_empty_pool_is_brought_to_its_base_and_the_row_says_what_it_costs(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    step(pool, provider, now)
    assert Worker.objects.filter(pool=pool, state="ordered").count() == 2 == len(provider.running)
    row = ScalingDecision.objects.get()
    assert (row.action, row.applied, row.cost_change_microusd, row.inputs["queue"]) == ("up", 2, 7_200_000, 0)
    assert row.outcome == "2 were ordered."


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
    pool, provider = make_pool(now), FakeProvider(refuse=ProviderError("No machine is free."))
    for second in range(0, 60):
        step(pool, provider, now + timedelta(seconds=second))
    assert 3 <= Worker.objects.filter(pool=pool, stop_reason="order_failed").count() <= 4
    pool.refresh_from_db()
    assert pool.halted_at is not None and "in a row" in pool.halted_reason
    assert ScalingDecision.objects.first().action == "halted"

    provider.refuse = None
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
    assert len(observing.failed_starts(pool, now=now)) == 3
    factories.make_worker(pool, now=now - timedelta(seconds=50))
    assert observing.failed_starts(pool, now=now) == []


def test_workers_that_vanish_together_are_one_failed_start(now: datetime) -> None:
    """An engine that restarts takes all that boot with it; a pool that halted for it would wait for a person."""
    pool, provider = make_pool(now, base=4, max=6), FakeProvider()
    step(pool, provider, now)
    assert len(provider.running) == 4
    for instance in provider.running:
        provider.running[instance] = False
    later = now + timedelta(seconds=5)
    workers.look_after(pool, provider=provider, fence=nothing, now=later)
    assert Worker.objects.filter(pool=pool, stop_reason="vanished").count() == 4
    assert len(observing.failed_starts(pool, now=later)) == 1
    step(pool, provider, later + timedelta(seconds=5))
    found = ScalingDecision.objects.first()
    assert found is not None and (found.action, found.applied) == ("up", 1), found
    assert Pool.objects.get(id=pool.id).halted_at is None


def test_a_worker_that_had_done_work_before_it_died_is_no_failed_start(now: datetime) -> None:
    pool = make_pool(now)
    factories.make_worker(pool, now=now - timedelta(seconds=20), state="stopped", stopped_at=now, stop_reason="vanished", jobs_done=3)
    assert observing.failed_starts(pool, now=now) == []


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


def test_a_provider_that_is_down_is_held_against_no_worker(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(refuse=Unavailable("The engine does not answer."))
    assert step(pool, provider, now).applied == 2
    assert set(Worker.objects.values_list("stop_reason", flat=True)) == {"provider_down"}
    for second in range(1, 10):
        decision = step(pool, provider, now + timedelta(seconds=second))
        assert (decision.applied, decision.bound) == (0, "provider unavailable")
    assert Worker.objects.count() == 2 and Pool.objects.get(id=pool.id).halted_at is None
    provider.refuse = None
    assert step(pool, provider, now + timedelta(seconds=16)).applied == 2 == len(provider.running)


def test_while_a_provider_does_not_answer_nobody_is_given_up_for_its_silence(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider(down=True)
    for n in range(2):
        factories.make_worker(pool, now=now, provider_ref={"name": f"p{n}"})
    said = workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=1))
    assert said == ["provider unavailable: The engine does not answer."]
    assert Worker.objects.filter(state="idle").count() == 2


def test_a_kind_of_machine_that_cannot_be_had_is_left_for_the_next_one(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    scarce = PoolOffer.objects.create(pool=pool, rank=1, gpu="h100", price_per_hour_microusd=3_000_000)
    plenty = PoolOffer.objects.create(pool=pool, rank=2, gpu="l40s", price_per_hour_microusd=2_000_000)
    start = provider.launch

    def launch(worker: Worker) -> dict[str, Any]:
        if worker.offer_id == scarce.id:
            raise NoCapacity("No h100 is free.")
        return start(worker)

    provider.launch = launch  # type: ignore[method-assign]
    step(pool, provider, now)
    assert set(Worker.objects.filter(state="ordered").values_list("offer_id", "gpu", "price_per_hour_microusd")) == {(plenty.id, "l40s", 2_000_000)}
    scarce.refresh_from_db()
    assert scarce.unavailable_until is not None and "h100" in scarce.unavailable_reason
    Worker.objects.all().delete()
    assert step(pool, provider, now + timedelta(seconds=1)).applied == 2
    assert not Worker.objects.filter(stop_reason="no_capacity").exists()


def test_a_container_that_cannot_start_ends_with_its_reason_and_last_words(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    step(pool, provider, now)
    provider.failing = dict.fromkeys(provider.running, "The image cannot be pulled.")
    workers.look_after(pool, provider=provider, fence=nothing, now=now + timedelta(seconds=1))
    worker = Worker.objects.first()
    assert worker is not None and (worker.stop_reason, worker.stop_message) == ("start_failed", "The image cannot be pulled.")
    assert worker.engine_log == [f"last words of {worker.instance}"]


def test_policies_in_shadow_are_asked_and_written_down_without_effect(now: datetime) -> None:
    pool, provider = make_pool(now, shadows=[{"policy": "request-count", "knobs": {"per_worker": 1}}, {"policy": "gone"}]), FakeProvider()
    workflow, customer = factories.make_runnable(now=now, pool=pool), factories.make_customer(now=now)
    for _ in range(2):
        factories.make_worker(pool, now=now)
    factories.submit(customer, workflow, now=now)
    for _ in range(2):
        factories.submit(customer, workflow, now=now)
    decision = step(pool, provider, now)
    row = ScalingDecision.objects.get()
    assert (decision.applied, row.shadow["request-count"]["wanted"]) == (1, 3)
    assert "no sizing policy" in row.shadow["gone"]["error"]
    minute = CapacityMinute.objects.get()
    assert (minute.queue, minute.ready, minute.shadows) == (3, 2, {"request-count": 3})


def test_a_pool_sized_by_somebody_else_is_only_told_its_size(now: datetime) -> None:
    pool = make_pool(now, provider="external")
    decision = scaling.step(pool, fence=nothing, epoch=1, now=now)
    assert (decision.wanted, decision.applied, decision.bound) == (2, 0, "size set elsewhere")
    assert CapacityMinute.objects.get().wanted == 0 and ScalingDecision.objects.get().inputs["asked"] == 0
    assert not Worker.objects.exists()


def test_a_spent_budget_orders_no_more_than_the_base(now: datetime) -> None:
    pool, provider = make_pool(now, budget_per_hour_microusd=3 * 3_600_000), FakeProvider()
    workflow, customer = factories.make_runnable(now=now, pool=pool), factories.make_customer(now=now)
    for _ in range(3):
        factories.make_worker(pool, now=now)
    for _ in range(9):
        factories.submit(customer, workflow, now=now)
    assert step(pool, provider, now).bound == "budget for 3 workers"
    Pool.objects.filter(id=pool.id).update(budget_per_hour_microusd=None, budget_per_day_microusd=1)
    assert step(pool, provider, now + timedelta(hours=1)).bound == "budget for 2 workers"


def test_a_paused_pool_changes_nothing_until_the_pause_ends(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    pools.pause(pool, until=now + timedelta(minutes=5), reason="an upgrade", actor="olga", now=now)
    assert step(pool, provider, now).bound == "paused"
    assert step(pool, provider, now + timedelta(minutes=5)).applied == 2


def test_every_change_of_a_pool_is_a_revision_and_the_same_again_is_none(now: datetime) -> None:
    pool = pools.create(slug="images", name="", provider="local", base=1, maximum=4, price_per_hour_microusd=5, actor="olga", now=now)
    assert pools.change(pool, {"max": 6, "policy": "request-count", "knobs": {"idle_s": 90}}, actor="olga", replay={"cost": 1}, now=now)
    assert not pools.change(pool, {"max": 6}, actor="olga", now=now)
    first, second = PolicyRevision.objects.order_by("number")
    assert (first.number, first.terms["max"], second.number, second.terms["policy"], second.replay) == (1, 4, 2, "request-count", {"cost": 1})
    assert AuditEntry.objects.get(action="pool.change").before == {"max": 4, "policy": "wait-target", "knobs": {}}


def test_the_idle_worker_whose_models_nobody_asks_for_leaves_first(now: datetime) -> None:
    pool, provider = make_pool(now, knobs={"idle_s": 60}), FakeProvider()
    workflow = factories.make_runnable(now=now, pool=pool)
    version = workflow.versions.get()
    type(version).objects.filter(id=version.id).update(warm_key="flux")
    at = now - timedelta(seconds=100)
    warm = factories.make_worker(pool, now=at - timedelta(seconds=500), warm=["flux"], provider_ref={"name": "warm"})
    cold = [factories.make_worker(pool, now=at, warm=["old"], provider_ref={"name": f"cold{n}"}) for n in range(2)]
    job = factories.submit(factories.make_customer(now=now), workflow, now=at)
    queue.claim(warm, now=at)
    queue.complete(warm, job_id=job.id, attempt=1, completion=queue.Completion("succeeded"), now=at + timedelta(seconds=1))
    Worker.objects.filter(id=warm.id).update(idle_since=at - timedelta(seconds=500), warm=["flux"])
    step(pool, provider, now)
    assert {name for name, _ in provider.stopped} <= {"cold0", "cold1"} and len(provider.stopped) == 1, cold


def test_who_takes_over_watches_a_while_before_anything_shrinks(now: datetime) -> None:
    pool, provider = make_pool(now), FakeProvider()
    for n in range(3):
        factories.make_worker(pool, now=now - timedelta(seconds=290), provider_ref={"name": f"p{n}"})
    step(pool, provider, now)

    def other(second: int) -> Any:
        return scaling.step(Pool.objects.get(id=pool.id), provider=provider, fence=nothing, epoch=2, now=now + timedelta(seconds=second))

    assert (other(11).bound, other(70).bound, provider.stopped) == ("just started", "just started", [])
    assert other(71).applied == -1


def test_a_pool_whose_sizing_fails_says_so_and_leaves_the_others_their_turn(now: datetime) -> None:
    broken = factories.make_pool(now=now, slug="a-broken", policy="gone")
    fine = factories.make_pool(now=now, slug="b-fine")
    tick = Tick(now, loops_kernel.take(loops.LOOPS[0], holder="me", now=now).epoch, "autoscale")  # type: ignore[union-attr]
    for _ in range(2):
        assert loops.LOOPS[0].step(tick) == "a-broken: failed, b-fine: hold"
    row = ScalingDecision.objects.get(pool=broken)
    assert (row.bound, row.repeats) == ("the scaler failed", 2) and "no sizing policy" in row.reason
    assert ScalingDecision.objects.filter(pool=fine).exists()
    fine.delete()
    with pytest.raises(Invalid):
        loops.LOOPS[0].step(tick)
