"""The scaler over a cluster: its steps and its rounds, with agents that register, work, and are lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import factories
import pytest
from django.utils import timezone

from fleet import membership, queue, scaling, workers
from fleet.models import Job, Pool, PoolOffer, ScalingDecision, Worker

pytestmark = pytest.mark.django_db

THRESHOLD = {"policy": "threshold", "knobs": {"idle_s": 60}}


class Fleet:
    """A pool, its cluster, and the agents in its pods. Time goes on by `round`."""

    def __init__(self, cluster: Any, provider: Any, **fields: Any) -> None:
        self.cluster, self.provider = cluster, provider
        self.now = timezone.now()
        self.pool = cluster.pool(**({"max": 4} | THRESHOLD | fields))
        self.workflow = factories.make_runnable(now=self.now, pool=self.pool)
        self.customer = factories.make_customer(now=self.now)
        self.dead: set[str] = set()
        self.busy_taken: list[str] = []
        self.after_each: Callable[[], None] = lambda: None
        provider.clock = lambda: self.now

    def submit(self, count: int) -> list[Job]:
        return [factories.submit(self.customer, self.workflow, now=self.now) for _ in range(count)]

    def round(self, *, seconds: float = 5.0) -> Any:
        """Agents speak, the scaler looks, decides, acts; the cluster follows."""
        self.now += timedelta(seconds=seconds)
        self.agents()
        self.pool = Pool.objects.get(id=self.pool.id)
        workers.look_after(self.pool, provider=self.provider, fence=lambda: None, now=self.now)
        self.pool = Pool.objects.get(id=self.pool.id)
        decision = scaling.step(self.pool, provider=self.provider, fence=lambda: None, epoch=1, now=self.now)
        busy = {w.instance for w in self.workers() if w.state == "busy"}
        before = set(self.cluster.active())
        self.cluster.settle()
        self.busy_taken += sorted(busy & (before - set(self.cluster.active())))
        return decision

    def agents(self) -> None:
        """Every agent in a running pod registers, and says that it is there; those told to go leave."""
        for pod in self.cluster.pods():
            name = pod["metadata"]["name"]
            running = any("running" in (c.get("state") or {}) for c in pod["status"].get("containerStatuses", ()))
            if name in self.dead or not running:
                continue
            row = Worker.objects.filter(instance=name).first()
            if row is not None and row.stopped_at is not None:
                continue
            if row is None or row.registered_at is None:
                row, _ = membership.register(self.pool, protocol=1, instance=name, name=name[-12:], fingerprint={}, now=self.now)
                queue.note_idle(row, now=self.now)
            Worker.objects.filter(id=row.id).update(seen_at=self.now)
            queue.heartbeat(row, state="busy" if self.running(row) else "idle", reports=self.reports(row), usage={}, now=self.now)
            row.refresh_from_db()
            if row.state == "draining" and not self.running(row):
                membership.stopped(row, reason="drained", now=self.now)

    def running(self, row: Worker) -> list[Job]:
        return list(Job.objects.filter(worker=row, status="running"))

    def reports(self, row: Worker) -> list[Any]:
        return [queue.Report(job_id=job.id, attempt=job.attempt, progress=0.5, node="1") for job in self.running(row)]

    def claim(self) -> int:
        """Each idle worker takes a job, if there is one."""
        return sum(len(queue.claim(w, limit=1, warm=[], now=self.now)) for w in self.workers() if w.state == "idle")

    def finish(self, *, but: int = 0) -> None:
        """All running jobs end, except some."""
        for job in Job.objects.filter(pool=self.pool, status="running").order_by("id")[but:]:
            done = queue.Completion(outcome="succeeded", failure_class="", error=None, outputs=[], timings={"busy_s": 1.0}, nodes=[])
            assert job.worker is not None
            queue.complete(job.worker, job_id=job.id, attempt=job.attempt, completion=done, now=self.now)
            queue.note_idle(Worker.objects.get(id=job.worker.id), now=self.now)

    def workers(self) -> list[Worker]:
        return list(Worker.objects.filter(pool=self.pool, state__in=Worker.LIVE).order_by("id"))

    def until(self, true: Callable[[], Any], *, rounds: int = 40, seconds: float = 5.0) -> None:
        for _ in range(rounds):
            if true():
                return
            self.round(seconds=seconds)
        said = list(ScalingDecision.objects.order_by("-id").values_list("reason", "outcome")[:5])
        raise AssertionError(f"it did not come to that: {[(w.name, w.state, w.stop_reason) for w in Worker.objects.all()]}, {said}")


@pytest.fixture
def fleet(cluster: Any, provider: Any) -> Fleet:
    cluster.nodes.add("node-a", gpus=8)
    return Fleet(cluster, provider)


def test_a_pool_goes_from_none_to_four_and_back_to_one_without_a_busy_pod_stopped(fleet: Fleet) -> None:
    jobs = fleet.submit(12)
    fleet.until(lambda: len([w for w in fleet.workers() if w.state == "idle"]) == 4)
    assert fleet.claim() == 4
    for _ in range(2):
        fleet.finish()
        fleet.claim()
    fleet.finish(but=1)
    long_job = Job.objects.get(status="running")
    assert Job.objects.filter(id__in=[j.id for j in jobs], status="succeeded").count() == 11
    fleet.until(lambda: len(fleet.workers()) == 1 and fleet.provider.observe(fleet.pool).wanted == 1, seconds=30)
    long_job.refresh_from_db()
    (left,) = fleet.workers()
    assert long_job.status == "running" and long_job.worker_id == left.id and long_job.attempt == 1
    assert fleet.busy_taken == []
    assert fleet.cluster.active() == [left.instance]
    fleet.finish()
    fleet.until(lambda: not fleet.cluster.active(), seconds=30)
    assert not Worker.objects.filter(stop_reason__in=["vanished", "lost", "start_failed"]).exists()


def test_every_decision_says_what_it_did(fleet: Fleet) -> None:
    fleet.submit(2)
    fleet.round()
    row = ScalingDecision.objects.latest("id")
    assert row.applied > 0 and row.reason and "Told the provider to run" in row.outcome


def test_rows_carry_what_kind_of_machine_they_are(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-a")
    fleet = Fleet(cluster, provider)
    offer = PoolOffer.objects.create(pool=fleet.pool, rank=1, gpu="L4", market="spot", price_per_hour_microusd=700_000)
    fleet.submit(1)
    fleet.until(lambda: [w for w in fleet.workers() if w.state == "idle"])
    (row,) = fleet.workers()
    assert (row.offer_id, row.market, row.gpu, row.price_per_hour_microusd, row.image) == (offer.id, "spot", "L4", 700_000, fleet.pool.image)


def test_a_lost_node_gives_its_jobs_back_and_its_pods_are_replaced(cluster: Any, provider: Any) -> None:
    here = cluster.nodes.add("node-a", gpus=1)
    cluster.nodes.add("node-b", gpus=3)
    fleet = Fleet(cluster, provider, base=2)
    fleet.submit(2)
    fleet.until(lambda: len([w for w in fleet.workers() if w.state == "idle"]) == 2)
    assert fleet.claim() == 2
    cluster.nodes.lost.add(here)
    (gone,) = [p["metadata"]["name"] for p in cluster.pods() if p["spec"]["nodeName"] == here]
    fleet.dead.add(gone)
    job = Job.objects.get(worker__instance=gone)
    # The node controller's taint, which keeps new pods away.
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
    cluster.nodes.admin.call("PATCH", f"/api/v1/nodes/{here}", {"spec": {"taints": [taint]}}, kind="application/merge-patch+json")
    fleet.until(lambda: Worker.objects.get(instance=gone).state == "lost")
    job.refresh_from_db()
    assert job.status == "queued"
    fleet.until(lambda: len([w for w in fleet.workers() if w.state == "idle"]) >= 1)
    assert fleet.claim() == 1
    job.refresh_from_db()
    assert job.status == "running" and job.attempt == 2 and gone not in cluster.active()


def test_pods_that_cannot_start_stop_the_ordering_and_say_why(fleet: Fleet) -> None:
    fleet.cluster.nodes.how["comfyplane-worker"] = "crash"
    fleet.submit(6)
    fleet.until(lambda: fleet.pool.halted_at is not None)
    assert "engine crashed 3 times" in Worker.objects.filter(stop_reason="start_failed").latest("id").stop_message
    fleet.until(lambda: not fleet.cluster.active())
    made = Worker.objects.count()
    for _ in range(5):
        fleet.round()
    assert Worker.objects.count() == made and fleet.provider.observe(fleet.pool).wanted == 0


def test_a_kind_of_machine_nobody_has_gives_way_to_the_next_one(cluster: Any, provider: Any) -> None:
    cluster.nodes.add("node-b", labels={"gpu": "a10"})
    fleet = Fleet(cluster, provider, settings={"patience_s": 60})
    first = PoolOffer.objects.create(pool=fleet.pool, rank=1, gpu="L4", price_per_hour_microusd=1, placement={"node_selector": {"gpu": "l4"}})
    second = PoolOffer.objects.create(pool=fleet.pool, rank=2, gpu="A10", price_per_hour_microusd=2, placement={"node_selector": {"gpu": "a10"}})
    fleet.submit(1)
    fleet.until(lambda: [w for w in fleet.workers() if w.state == "idle"])
    first.refresh_from_db()
    assert first.unavailable_until is not None and "No node has room" in first.unavailable_reason
    fleet.until(lambda: [w.offer_id for w in fleet.workers()] == [second.id])  # a pod made before the count went down may still be leaving
    reasons = set(Worker.objects.filter(offer=first).values_list("stop_reason", flat=True))
    assert {"no_capacity"} <= reasons <= {"no_capacity", "taken_away"} and fleet.pool.halted_at is None


def test_a_worker_drained_by_hand_leaves_no_pod_behind(fleet: Fleet) -> None:
    fleet.submit(2)
    fleet.until(lambda: len([w for w in fleet.workers() if w.state == "idle"]) == 2)
    fleet.claim()
    worker = fleet.workers()[0]
    fleet.cluster.nodes.how[worker.instance] = "left"
    membership.drain(worker, actor="somebody", now=fleet.now)
    fleet.finish()
    membership.stopped(worker, reason="drained", now=fleet.now)
    fleet.cluster.nodes.step()
    fleet.until(lambda: worker.instance not in fleet.cluster.active())
    assert not Worker.objects.filter(stop_reason="vanished").exists()
