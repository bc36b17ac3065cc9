"""A pool on several machines of which one is silent: the rest is known and sized, and nobody is taken for gone, or ordered twice, for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import Sum

from controlplane.kernel import loops as kernel_loops
from controlplane.kernel.loops import Loop, LostLead, Tick
from fleet import launching, loops, worker_hours, workers
from fleet.models import Pool, PoolOffer, Worker, WorkerHour
from fleet.observing import failed_starts
from fleet.providers.base import Observed, Unavailable
from tests import factories
from tests.fleet.life_world import Machines, World

pytestmark = pytest.mark.django_db


@dataclass
class Hosts(Machines):
    """Machines on hosts by their offer; silent hosts answer nothing, though what runs there runs on."""

    silent: set[str] = field(default_factory=set)
    host: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def observe(self, pool: Pool) -> Observed:
        found = {name: one for name, one in super().observe(pool).instances.items() if self.host[name] not in self.silent}
        closed = {offer.id for offer in PoolOffer.objects.filter(pool=pool) if offer.placement["host"] in self.silent}
        return Observed(found, silent={name: f"The engine at {name} does not answer." for name in self.silent}, closed=frozenset(closed))

    def launch(self, worker: Worker) -> dict[str, Any]:
        assert worker.offer is not None
        name = worker.offer.placement["host"]
        self.asked.append(name)
        if name in self.silent:
            raise Unavailable(f"The engine at {name} does not answer.")
        self.host[worker.instance] = name
        return super().launch(worker) | {"host": name}


@pytest.fixture
def world(now: datetime) -> World:
    made = World(now, base=4, max=6, on_demand_share=1.0)
    for rank, name in enumerate(("one", "two")):
        PoolOffer.objects.create(pool=made.pool, rank=rank, gpu="L4", price_per_hour_microusd=1, most=3, placement={"host": name})
    made.machines = Hosts()
    made.run(20)
    assert sorted(made.machines.host.values()) == ["one", "one", "one", "two"]
    return made


def on(world: World, host: str) -> list[Worker]:
    return [w for w in world.live() if w.provider_ref.get("host") == host]


def test_workers_on_a_silent_host_count_as_they_were_last_seen_and_nothing_is_ordered_for_them(world: World) -> None:
    before, asked = {w.id for w in world.live()}, len(world.machines.asked)
    world.machines.silent = {"one"}
    world.run(60)
    assert {w.id for w in world.live()} == before, "they still speak for themselves"
    assert len(world.machines.asked) == asked


def test_a_worker_of_a_host_that_answers_is_still_found_to_be_gone_and_replaced_there(world: World) -> None:
    (lone,) = on(world, "two")
    world.machines.silent = {"one"}
    world.tick()
    world.machines.running.pop(lone.instance)
    asked = len(world.machines.asked)
    world.run(20)
    lone.refresh_from_db()
    assert lone.stop_reason == "vanished"
    assert world.machines.asked[asked:] == ["two"], "no order is placed on the silent one"
    assert len(on(world, "one")) == 3 and len(on(world, "two")) == 1


def test_workers_that_went_silent_with_their_host_are_lost_by_their_own_silence_and_then_replaced_once(world: World) -> None:
    dead = on(world, "one")
    world.machines.silent, world.mute = {"one"}, {w.instance for w in dead}
    world.run(10)
    assert {w.id for w in on(world, "one")} == {w.id for w in dead}, "not yet"
    world.run(90)
    gone = [Worker.objects.get(id=w.id) for w in dead]
    assert {(w.state, w.stop_reason) for w in gone} == {("lost", "host_silent")}
    assert gone[0].stop_message == "Nothing was heard of it for 30 s. Its host does not answer either."
    assert len(on(world, "two")) == 3, "as many as may be there"
    assert set(world.machines.asked[4:]) == {"two"}


def test_a_worker_that_falls_silent_on_a_host_that_answers_is_lost_for_a_reason_of_its_own(world: World) -> None:
    (lone,) = on(world, "two")
    world.machines.silent, world.mute = {"one"}, {lone.instance}
    world.run(40)
    lone.refresh_from_db()
    assert (lone.state, lone.stop_reason) == ("lost", "lost")


def test_a_host_that_falls_silent_while_its_workers_start_halts_no_pool_and_changes_no_image(now: datetime) -> None:
    world = World(now, base=4, max=8, on_demand_share=1.0, image="img:2", previous_image="img:1", price_per_hour_microusd=3_600_000)
    for rank, name in enumerate(("one", "two")):
        PoolOffer.objects.create(pool=world.pool, rank=rank, gpu="L4", price_per_hour_microusd=3_600_000, most=4 + rank, placement={"host": name})
    world.machines = Hosts()
    world.tick(agents=False)
    dead = world.live()
    assert {w.provider_ref["host"] for w in dead} == {"one"}
    world.machines.silent, world.mute = {"one"}, {w.instance for w in dead}
    for _ in range(20):
        world.tick(10)
    gone = [Worker.objects.get(id=w.id) for w in dead]
    assert {(w.state, w.stop_reason) for w in gone} == {("stopped", "host_silent")}
    assert gone[0].stop_message == "It was not ready 120 s after it was ordered. Its host does not answer either."
    assert [w.provider_ref["host"] for w in world.live("idle")] == ["two"] * 4, "the host that answers takes their place"
    pool = world.fresh_pool
    assert (pool.halted_at, pool.image) == (None, "img:2")
    assert failed_starts(pool, now=world.now) == []
    worker_hours.recompute(now=world.now)
    hours = WorkerHour.objects.filter(worker__in=dead).aggregate(ms=Sum("total_ms"), cost=Sum("total_microusd"))
    lived_s = sum((w.stopped_at - w.ordered_at).total_seconds() for w in gone if w.stopped_at)
    assert (hours["ms"], hours["cost"]) == (lived_s * 1000, lived_s * 1000), "what they cost until then stays in the books"


def test_the_only_engine_being_down_while_workers_start_halts_nothing_and_they_come_when_it_is_back(now: datetime) -> None:
    world = World(now, base=4, max=8)
    world.tick(agents=False)
    dead = world.live()
    world.machines.down, world.mute = True, {w.instance for w in dead}
    for _ in range(15):
        world.tick(10)
    gone = [Worker.objects.get(id=w.id) for w in dead]
    assert {w.stop_reason for w in gone} == {"host_silent"}
    assert gone[0].stop_message.endswith("Its provider does not answer either.")
    assert world.fresh_pool.halted_at is None
    world.machines.down = False
    world.machines.running.clear()
    for _ in range(6):
        world.tick(10)
    assert len(world.live("idle")) == 4 and world.fresh_pool.halted_at is None


def test_an_order_that_was_not_answered_is_not_placed_again_elsewhere_but_the_next_one_is(now: datetime) -> None:
    world = World(now, base=1, max=2, on_demand_share=1.0)
    for rank, name in enumerate(("one", "two")):
        PoolOffer.objects.create(pool=world.pool, rank=rank, gpu="L4", price_per_hour_microusd=1, placement={"host": name})
    world.machines = Hosts(silent={"one"})
    world.tick(agents=False)
    (first,) = Worker.objects.filter(pool=world.pool, stop_reason="provider_down")
    assert first.offer is not None and first.offer.placement == {"host": "one"}
    world.run(5)
    assert world.machines.asked == ["one", "two"]
    assert [w.offer.placement["host"] for w in world.live() if w.offer] == ["two"]
    assert first.stop_reason == launching.PROVIDER_DOWN


def test_orders_are_given_to_the_host_again_when_it_is_back(world: World) -> None:
    world.run(60)  # what was ready for a minute is no failed start
    world.machines.silent = {"one"}
    world.tick()
    assert PoolOffer.objects.get(pool=world.pool, rank=0).unavailable_until is not None
    world.machines.silent = set()
    for worker in on(world, "one"):
        world.machines.running.pop(worker.instance)
    world.run(60)
    assert {w.provider_ref["host"] for w in world.live()} == {"one", "two"}


def test_a_slow_step_keeps_its_lead_by_its_fence(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import transaction

    factories.make_pool(now=now)
    loop = Loop("workers", 1.0, lambda tick: "", lease_s=25.0)
    lead = kernel_loops.take(loop, holder="a", now=now)
    assert lead is not None
    clock = [now]
    monkeypatch.setattr(loops.timezone, "now", lambda: clock[0])
    taken: list[object] = []

    def slow(pool: Pool, fence: Callable[[], None]) -> str:
        for _ in range(10):  # ten kills of 20 s each
            clock[0] += timedelta(seconds=20)
            with transaction.atomic():
                fence()
            taken.append(kernel_loops.take(loop, holder="b", now=clock[0] + timedelta(seconds=20)))
        return ""

    loops._each_pool(Tick(now, lead.epoch, "workers", 25.0), slow)
    assert taken == [None] * 10
    assert kernel_loops.take(loop, holder="b", now=clock[0] + timedelta(seconds=26)) is not None
    with pytest.raises(LostLead), transaction.atomic():
        kernel_loops.fence("workers", lead.epoch)


def test_every_kill_of_a_round_renews_the_lead(world: World) -> None:
    """The workers loop hands its renewing fence to whatever ends a worker."""
    fenced: list[int] = []
    Worker.objects.filter(pool=world.pool).update(seen_at=world.now - timedelta(hours=1))
    factories.make_worker(factories.make_pool(now=world.now), now=world.now)  # somebody is heard
    workers.look_after(world.fresh_pool, provider=world.machines, fence=lambda: fenced.append(1), now=world.now)
    assert len(fenced) >= 4
