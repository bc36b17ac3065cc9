"""Workers are set aside, taken out, replaced and taken away, and no job is the worse for it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from controlplane.kernel.errors import Conflict
from controlplane.kernel.models import AuditEntry
from fleet import membership, preemption, queue, replacing
from fleet.models import Attempt, Job, PoolOffer, ScalingDecision, Worker, WorkerChange
from tests.fleet.life_world import World

pytestmark = pytest.mark.django_db


def again(worker: Worker) -> Worker:
    return Worker.objects.get(id=worker.id)


def test_a_cordoned_worker_finishes_its_job_takes_no_other_and_comes_back(now: datetime) -> None:
    world = World(now)
    worker = world.worker()
    first, second = world.submit(2)
    assert world.claim(worker)
    for _ in range(2):
        membership.cordon(worker, actor="olga", reason="noisy fan", now=now)
    world.done(first)
    assert world.claim(worker) == [] and not queue.ready(again(worker), now=now)
    assert again(worker).state == "idle" and Job.objects.get(id=second.id).status == "queued"
    for _ in range(2):
        membership.uncordon(worker, actor="olga", now=now)
    assert [a.job_id for a in world.claim(worker)] == [second.id]
    assert list(AuditEntry.objects.order_by("seq").values_list("action", flat=True)) == ["worker.cordon", "worker.uncordon"]


def test_a_claim_that_read_the_worker_before_it_was_set_aside_leases_nothing(now: datetime) -> None:
    for change in ("cordon", "fault", "notice"):
        world = World(now)
        worker, (job,) = world.worker(), world.submit()
        stale = again(worker)
        if change == "cordon":
            membership.cordon(worker, actor="olga", now=now)
        elif change == "fault":
            membership.fault(worker, actor="olga", reason="bad memory", now=now)
        else:
            preemption.notice(worker, at=now + timedelta(seconds=100), now=now)
        assert queue.claim(stale, now=now) == []
        assert (Job.objects.get(id=job.id).status, Attempt.objects.filter(job=job).count()) == ("queued", 0)


def test_a_faulty_workers_job_goes_to_another_and_the_worker_stays_to_be_looked_at(now: datetime) -> None:
    world = World(now, base=0)
    bad, good, (job,) = world.worker(), world.worker(), world.submit()
    world.claim(bad)
    assert membership.fault(bad, actor="olga", reason="It makes black pictures.", now=now) == 1
    assert membership.fault(bad, actor="olga", reason="again", now=now) == 0
    queue.heartbeat(again(bad), state="idle", now=now)
    assert (again(bad).state, again(bad).stop_message) == ("faulted", "It makes black pictures.")
    assert [a.job_id for a in world.claim(good)] == [job.id]
    lost = Attempt.objects.get(job=job, number=1)
    assert (lost.state, lost.error["code"]) == ("lost", "worker_faulted")

    world.tick(1790)
    assert again(bad).state == "faulted"
    world.tick(11)
    assert (again(bad).state, again(bad).drain_asked_at) == ("draining", world.now)


def test_a_worker_taken_out_by_mistake_goes_back_to_work(now: datetime) -> None:
    world = World(now)
    worker, (job,) = world.worker(), world.submit()
    membership.fault(worker, actor="olga", reason="wrong one", now=now)
    membership.uncordon(worker, actor="olga", reason="it was another", now=now)
    assert (again(worker).state, again(worker).faulted_at, again(worker).stop_message) == ("idle", None, "")
    assert [a.job_id for a in world.claim(worker)] == [job.id]
    assert list(WorkerChange.objects.values_list("kind", flat=True)) == ["faulted", "cleared"]


def test_what_is_gone_or_leaving_cannot_be_set_aside(now: datetime) -> None:
    world = World(now)
    gone, going = world.worker(state="stopped", stopped_at=now), world.worker()
    membership.drain(going, actor="olga", now=now)
    with pytest.raises(Conflict):
        membership.cordon(gone, actor="olga", now=now)
    with pytest.raises(Conflict):
        membership.uncordon(going, actor="olga", now=now)
    for worker in (gone, going):
        with pytest.raises(Conflict):
            replacing.ask(worker, provider=world.machines, actor="olga", now=now)


def test_a_worker_is_replaced_without_a_gap_and_without_a_second_surge(now: datetime) -> None:
    world = World(now, base=4, max=4)
    olds = [world.worker() for _ in range(4)]
    (job,) = world.submit()
    world.claim(olds[0])
    fresh = replacing.ask(olds[0], provider=world.machines, actor="olga", reason="old driver", now=now)
    assert fresh is not None and replacing.ask(olds[0], provider=world.machines, actor="olga", now=now) == fresh
    with pytest.raises(Conflict) as refused:
        replacing.ask(olds[1], provider=world.machines, actor="olga", now=now)
    assert refused.value.code == "pool_full"

    least = 4
    for _ in range(8):
        world.tick()
        least = min(least, len(world.live("idle", "busy")))
    assert least == 4 and world.machines.launched == 1
    assert (again(olds[0]).state, again(fresh).state) == ("draining", "idle")
    assert Job.objects.get(id=job.id).status == "running"  # it finishes first
    world.done(job)
    world.run(3)
    assert {w.id for w in world.live()} == {*[w.id for w in olds[1:]], fresh.id}
    assert not ScalingDecision.objects.exclude(action="hold").exists()


def test_a_replacement_that_never_starts_is_tried_three_times_and_the_old_worker_stays(now: datetime) -> None:
    world = World(now, base=1, max=2, image="broken:1")
    old = world.worker(image="good:1")
    world.machines.bad_images.add("broken:1")
    replacing.ask(old, provider=world.machines, actor="olga", now=now)
    world.run(120)
    assert world.machines.launched == 3 and again(old).state == "idle" and again(old).drain_asked_at is None
    assert WorkerChange.objects.filter(worker=old).last().note.startswith("Given up")


def test_what_its_provider_takes_away_takes_no_job_and_another_is_ordered_at_once(now: datetime) -> None:
    world = World(now)
    offer = PoolOffer.objects.create(pool=world.pool, rank=1, gpu="a100", market="spot", price_per_hour_microusd=1_000_000)
    spot, other = world.worker(offer=offer, market="spot"), world.worker()
    world.machines.notice[spot.instance] = 120.0
    job = world.submit()[0]
    world.tick()
    assert again(spot).preempt_at == world.now + timedelta(seconds=120)
    assert world.claim(spot) == []
    world.machines.notice[spot.instance] = 119.0
    world.run(3)
    offer.refresh_from_db()
    assert offer.interruptions == 1 and world.machines.launched == 1
    assert [a.job_id for a in world.claim(other)] == [job.id]
    assert again(spot).state == "stopped" and again(spot).stop_reason == "drained"  # it had nothing to do
    offer.refresh_from_db()
    assert 0 < offer.worker_hours < 0.01


def test_a_job_that_cannot_end_in_time_goes_back_to_its_place_uncharged_and_uncounted(now: datetime) -> None:
    world = World(now, base=0)
    worker = world.worker()
    first, second, third = world.submit(3)
    world.claim(worker)
    place = Job.objects.get(id=first.id)
    preemption.notice(worker, at=now + timedelta(seconds=5), now=now)  # nobody measured it: ten seconds are expected
    job = Job.objects.get(id=first.id)
    assert (job.status, job.fair_tag, job.queued_at, job.max_attempts) == ("queued", place.fair_tag, place.queued_at, place.max_attempts + 1)
    lost = Attempt.objects.get(job=first)
    assert (lost.state, lost.failure_class, lost.error["code"]) == ("lost", "capacity", "worker_preempted")
    assert queue.heartbeat(again(worker), state="busy", reports=[queue.Report(first.id, 1)], now=now)[0].verdict == "lost"
    other = world.worker()
    order = []
    for _ in range(3):
        (leased,) = world.claim(other)
        order.append(leased.job_id)
        queue.complete(again(other), job_id=leased.job_id, attempt=leased.attempt, completion=queue.Completion("succeeded"), now=now)
    assert order == [first.id, second.id, third.id]
    assert Job.objects.get(id=first.id).price_microusd == Job.objects.get(id=second.id).price_microusd


def test_a_job_that_can_end_in_time_is_let_end(now: datetime) -> None:
    world = World(now, base=0)
    worker, (job,) = world.worker(), world.submit()
    world.claim(worker)
    preemption.notice(worker, at=now + timedelta(seconds=60), now=now)
    assert Job.objects.get(id=job.id).status == "running"
    world.tick(8)
    world.done(job)
    assert Job.objects.get(id=job.id).status == "succeeded"


def test_a_job_that_runs_longer_than_usual_goes_back_before_the_machine_does(now: datetime) -> None:
    world = World(now, base=0)
    worker, (job,) = world.worker(), world.submit()
    world.claim(worker)
    preemption.notice(worker, at=now + timedelta(seconds=30), now=now)
    for _ in range(29):
        world.tick()
    assert Job.objects.get(id=job.id).status == "queued"


def test_a_machine_taken_away_without_waiting_for_its_agent_gives_the_job_its_place_too(now: datetime) -> None:
    world = World(now, base=0)
    worker = world.worker()
    first, _ = world.submit(2)
    world.claim(worker)
    tag = Job.objects.get(id=first.id).fair_tag
    preemption.notice(worker, at=now + timedelta(seconds=60), now=now)
    world.machines.running[worker.instance] = False
    world.tick()
    job = Job.objects.get(id=first.id)
    assert (again(worker).stop_reason, job.status, job.fair_tag, job.attempt, job.max_attempts) == ("vanished", "queued", tag, 1, 4)


def test_a_lease_that_runs_out_on_a_machine_taken_away_keeps_the_place_too(now: datetime) -> None:
    world = World(now, base=0)
    worker, (job,) = world.worker(), world.submit()
    world.claim(worker)
    preemption.notice(worker, at=now + timedelta(seconds=60), now=now)
    queue.expire_leases(now=now + timedelta(seconds=40))
    job.refresh_from_db()
    assert (job.status, job.max_attempts, job.fair_tag > 0) == ("queued", 4, True)


def test_a_job_its_agent_gives_up_as_the_machine_goes_is_no_attempt_of_its_own(now: datetime) -> None:
    world = World(now, base=0)
    worker, (job,) = world.worker(), world.submit()
    Job.objects.update(max_attempts=1)
    world.claim(worker)
    preemption.notice(worker, at=now + timedelta(seconds=60), now=now)
    stopped = queue.Completion("failed", failure_class="platform", error={"code": "worker_stopped", "message": "x", "suggestion": "y"})
    queue.complete(again(worker), job_id=job.id, attempt=1, completion=stopped, now=now)
    job.refresh_from_db()
    assert (job.status, job.max_attempts) == ("queued", 2)


def test_jobs_of_a_lost_worker_come_first_in_the_order_they_were_sent(now: datetime) -> None:
    world = World(now, base=0)
    worker = world.worker()
    jobs = world.submit(4)
    queue.claim(worker, limit=3, now=now)
    membership.stopped(worker, reason="crash", now=now)
    other = world.worker()
    assert [a.job_id for a in queue.claim(other, limit=4, now=now)] == [j.id for j in jobs]


def test_a_job_costs_what_its_own_worker_costs_an_hour(now: datetime) -> None:
    world = World(now, base=0)  # the pool says $3.60
    cheap, unpriced = world.worker(price_per_hour_microusd=360_000), world.worker(price_per_hour_microusd=0)
    for worker, cost in ((cheap, 1_000), (unpriced, 10_000)):
        (job,) = world.submit()
        world.claim(worker)
        queue.complete(again(worker), job_id=job.id, attempt=1, completion=queue.Completion("succeeded"), now=world.now + timedelta(seconds=10))
        assert Job.objects.get(id=job.id).cost_microusd == cost


def test_a_spot_machine_that_vanished_without_notice_counts_as_an_interruption(now: datetime) -> None:
    world = World(now, base=1)
    offer = PoolOffer.objects.create(pool=world.pool, rank=1, gpu="a100", market="spot", price_per_hour_microusd=1_000_000)
    worker = world.worker(offer=offer, market="spot")
    world.machines.running[worker.instance] = False
    world.tick(3600)
    offer.refresh_from_db()
    assert offer.interruptions == 1 and offer.worker_hours == pytest.approx(1.0)
