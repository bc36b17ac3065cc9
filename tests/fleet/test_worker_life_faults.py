"""Clocks that jump, providers that are down and controllers that are two: no job is lost, no busy worker stopped, nothing runs away."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.kernel.loops import LostLead, Tick
from fleet import launching, loops, membership, preemption, queue, reconcile, replacing, scaling, workers
from fleet.models import Attempt, Job, ScalingDecision, Worker
from fleet.providers.base import NoCapacity, Unavailable
from tests import factories
from tests.fleet.life_world import Machines, World

pytestmark = pytest.mark.django_db


def busy_stops(world: World) -> int:
    """Machines that were ended by force while a job ran on them."""
    names = {name for name, force in world.machines.stopped if force}
    return Attempt.objects.filter(worker__instance__in=names, state="lost").count()


@pytest.mark.parametrize("jump_s", [3600, -3600, 86_400, -86_400])
def test_a_clock_that_jumps_ends_nobody_and_takes_no_job(now: datetime, jump_s: int) -> None:
    world = World(now, base=2, max=4)
    world.run(5)
    jobs = world.submit(2)
    for worker in world.live("idle"):
        world.claim(worker)
    world.tick()
    before = {w.id: w.state for w in world.live("busy")}
    assert len(before) == 2
    world.now += timedelta(seconds=jump_s)
    world.tick(agents=False)  # the loops see the new time before any worker has spoken
    assert {w.id: w.state for w in world.live("busy")} == before
    world.run(40)
    assert {w.id: w.state for w in world.live("busy")} == before and not world.machines.stopped
    assert set(Job.objects.values_list("status", "attempt")) == {("running", 1)}
    for job in jobs:
        world.done(job)
    assert Job.objects.filter(status="succeeded").count() == 2 and world.machines.launched <= 4
    assert ScalingDecision.objects.exclude(reason="").count() == ScalingDecision.objects.count()


def test_after_a_jump_who_is_silent_is_still_found(now: datetime) -> None:
    world = World(now, base=1)
    world.run(5)
    (worker,) = world.live("idle")
    world.now += timedelta(hours=1)
    for _ in range(29):
        world.tick(agents=False)
    assert Worker.objects.get(id=worker.id).state == "idle"
    for _ in range(35):
        world.tick(agents=False)
    assert Worker.objects.get(id=worker.id).state == "lost"


def test_workers_that_were_starting_when_the_clock_jumped_are_no_failed_starts(now: datetime) -> None:
    world = World(now, base=2)
    world.tick(agents=False)
    assert len(world.live("ordered")) == 2
    world.now += timedelta(hours=3)
    world.tick(agents=False)
    assert len(world.live("ordered")) == 2
    world.run(3)
    assert len(world.live("idle")) == 2 and world.machines.launched == 2 and world.fresh_pool.halted_at is None


def test_leases_are_not_run_out_by_a_jump_of_the_clock(now: datetime) -> None:
    world = World(now, base=0)
    worker, (job,) = world.worker(), world.submit()
    world.claim(worker)

    def leases(at: datetime) -> str:
        loops.watching.since("leases", now=at)
        return loops._leases(Tick(now=at, epoch=1, name="leases"))

    leases(now)
    assert leases(now + timedelta(hours=1)) == "watching again: workers are heard first"
    assert Job.objects.get(id=job.id).status == "running"


def test_while_the_provider_is_down_nothing_is_ordered_ended_or_forgotten(now: datetime) -> None:
    world = World(now, base=2, max=6)
    world.run(5)
    jobs = world.submit(20)
    for worker in world.live("idle"):
        world.claim(worker)
    world.machines.down = True
    launched = world.machines.launched
    for _ in range(45):
        world.tick()
    assert len(world.live("busy")) == 2 and world.machines.launched == launched and not world.machines.stopped
    assert world.fresh_pool.halted_at is None
    assert len(world.live()) <= 6, "no rows without end"
    assert "provider" in ScalingDecision.objects.filter(pool=world.pool).first().bound or ScalingDecision.objects.filter(bound="provider unavailable").exists()
    world.machines.down = False
    for _ in range(40):
        world.tick()
    assert len(world.live("idle", "busy")) == 6  # it goes on by itself
    assert Job.objects.filter(id__in=[j.id for j in jobs], status__in=["queued", "running"]).count() == 20


def test_a_replacement_waits_for_a_provider_that_is_down(now: datetime) -> None:
    world = World(now, base=2, max=2)
    world.run(5)
    old = world.live("idle")[0]
    world.machines.down = True
    replacing.ask(old, provider=world.machines, actor="olga", now=world.now)
    world.run(30)
    assert Worker.objects.get(id=old.id).state == "idle"
    world.machines.down = False
    for _ in range(60):
        world.tick()
    replaced = Worker.objects.get(id=old.id)
    assert replaced.drain_asked_at is not None or replaced.changes.last().note.startswith("Given up")
    assert len(world.live("idle", "busy")) == 2


@pytest.mark.parametrize("refusal", [NoCapacity("No such card is free."), Unavailable("429: slow down.", retry_after_s=30)])
def test_a_provider_that_refuses_is_not_asked_without_end(now: datetime, refusal: Exception) -> None:
    world = World(now, base=3, max=3)
    world.machines.refuse = refusal  # type: ignore[assignment]
    world.run(70)
    assert Worker.objects.count() <= 25 and ScalingDecision.objects.count() <= 25 and not world.live("idle", "busy")
    world.machines.refuse = None
    for _ in range(70):
        world.tick()
    if world.fresh_pool.halted_at is None:
        assert len(world.live("idle")) == 3


class InTurn:
    """Stands where the threads of a launch are: one after the other, in the thread of the test."""

    def __init__(self, **_: Any) -> None: ...

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, asked: Callable[[Worker], Any], workers: Iterable[Worker]) -> list[Any]:
        return [asked(worker) for worker in workers]


class AnswerLost(Machines):
    """The machine starts, its agent registers and takes a job; only then the call that started it fails."""

    def launch(self, worker: Worker) -> dict[str, Any]:
        super().launch(worker)
        membership.register(worker.pool, protocol=1, instance=worker.instance, name=worker.name, fingerprint={}, now=worker.ordered_at)
        queue.heartbeat(Worker.objects.get(id=worker.id), state="idle", reports=[], now=worker.ordered_at)
        assert queue.claim(Worker.objects.get(id=worker.id), now=worker.ordered_at)
        raise Unavailable("The engine did not answer within 20 s.")


def test_a_worker_that_registered_before_its_order_failed_keeps_its_job_and_is_not_ended(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "ThreadPoolExecutor", InTurn)  # the test's transaction is seen by its own thread only
    world = World(now, base=1, max=1)
    world.machines = AnswerLost()
    (job,) = world.submit()
    world.tick(agents=False)
    (worker,) = Worker.objects.filter(pool=world.pool)
    assert (worker.state, worker.stop_reason, worker.provider_ref) == ("busy", "", {"name": worker.instance}), "found by what the provider shows"
    world.run(40)
    assert Job.objects.get(id=job.id).status == "running" and not world.machines.stopped
    world.done(job)
    world.tick()
    assert [w.id for w in world.live("idle")] == [worker.id] and world.machines.launched == 1


def test_an_order_that_failed_is_written_off_though_somebody_drained_it_meanwhile(now: datetime) -> None:
    world = World(now, base=0)
    row = {"state": "ordered", "registered_at": None, "ready_at": None, "idle_since": None, "seen_at": None}
    worker = factories.make_worker(world.pool, now=now, **row)
    world.machines.down = True
    membership.drain(Worker.objects.get(id=worker.id), actor="olga", now=now)
    assert len(launching.launch([worker], world.machines, now=now)) == 1
    worker.refresh_from_db()
    assert (worker.state, worker.stop_reason) == ("stopped", "provider_down")


def test_two_controllers_order_once_and_the_one_that_lost_its_lead_does_nothing(now: datetime) -> None:
    world = World(now, base=3, max=6)
    world.submit(30)

    def lost() -> None:
        raise LostLead

    for _ in range(12):
        world.tick()
        stale = world.fresh_pool
        before = (world.machines.launched, len(world.machines.stopped), Worker.objects.count())
        for act in (
            lambda p=stale: scaling.step(p, provider=world.machines, fence=lost, epoch=0, now=world.now),
            lambda p=stale: workers.look_after(p, provider=world.machines, fence=lost, now=world.now),
        ):
            with contextlib.suppress(LostLead):
                act()
        assert (world.machines.launched, len(world.machines.stopped), Worker.objects.count()) == before
    assert world.machines.launched <= 6 and len(world.live()) <= 6


def test_both_controllers_at_work_in_turn_never_pass_the_maximum(now: datetime) -> None:
    world = World(now, base=1, max=5)
    world.submit(200)
    for second in range(20):
        world.epoch = 1 + second % 2
        world.tick()
        assert len(world.live("ordered", "starting", "loading", "idle", "busy")) <= 5
    assert world.machines.launched <= 5


def test_whatever_happens_to_workers_every_job_ends_once_and_in_the_books(now: datetime) -> None:
    """A long evening: cordons, faults, notices, machines that vanish, a provider that comes and goes, a clock that jumps."""
    for seed in (0, 3):
        dice = random.Random(seed)
        world = World(now, base=3, max=8)
        world.run(5)
        jobs = world.submit(30)
        for _ in range(70):
            for worker in world.live("idle", "starting"):
                world.claim(worker)
            running = list(Job.objects.filter(pool=world.pool, status="running"))
            for job in running:
                if dice.random() < 0.25:
                    world.done(job)
            victims = world.live("idle", "busy")
            if victims and dice.random() < 0.25:
                victim, what = dice.choice(victims), dice.randrange(7)
                if what == 0:
                    membership.cordon(victim, actor="olga", now=world.now)
                elif what == 1:
                    membership.fault(victim, actor="olga", reason="?", now=world.now)
                elif what == 2:
                    preemption.notice(victim, at=world.now + timedelta(seconds=dice.choice([3, 40])), now=world.now)
                elif what == 3:
                    world.machines.running[victim.instance] = False
                elif what == 4:
                    world.machines.down = not world.machines.down
                elif what == 5:
                    world.now += timedelta(seconds=dice.choice([-600, 900]))
                elif Worker.objects.get(id=victim.id).drain_asked_at is None:
                    membership.drain(victim, actor="olga", now=world.now)
            for worker in world.live("idle", "busy", "faulted"):
                if (worker.cordoned_at or worker.faulted_at) and worker.drain_asked_at is None and dice.random() < 0.1:
                    membership.uncordon(worker, actor="olga", now=world.now)
            world.tick()
            assert len(world.live("ordered", "starting", "loading", "idle", "busy")) <= 8 + 8  # those set aside stand beside the maximum
        world.machines.down = False
        for _ in range(60):
            for worker in world.live("idle", "starting"):
                world.claim(worker)
            for job in Job.objects.filter(pool=world.pool, status="running"):
                world.done(job)
            world.tick()
            if not Job.objects.filter(pool=world.pool, status__in=["queued", "running"]).exists():
                break
        left = Job.objects.filter(id__in=[j.id for j in jobs]).exclude(status="succeeded")
        assert {j.error["code"] for j in left if j.error} <= {"worker_lost", "worker_faulted"}, seed
        assert not left.filter(status__in=["queued", "running"]).exists(), seed
        assert reconcile.drift(now=world.now).total == 0
        assert queue.expire_leases(now=world.now) == 0
