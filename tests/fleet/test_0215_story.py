"""The seed's night of the launch: at two the queue is four hours late; capacity is raised, overflow runs fast, and by six all is done.

Simulated time, real functions: admission, claims, completions, sizing with a provider whose workers take 90 s to come. 400 jobs
stand for the 15,000 additional products, so each takes as long as some forty of them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from controlplane.console import attention, emergency_words
from controlplane.kernel.errors import Unavailable
from controlplane.kernel.models import AuditEntry
from fleet import demand, emergencies, emergency_calls, floors, membership, queries_pools, queue, reconcile, scaling
from fleet.models import Attempt, EmergencyAction, Job, Pool, PoolOffer, ScalingDecision, Worker
from fleet.providers.base import Instance, Observed
from tests import factories
from tests.fleet.emergency_world import SLOW, forget

COLD_S = 90.0
USUAL_S = 288.0
FAST_S = 100.0
PRODUCTS = 400
TICK = timedelta(seconds=90)
NIGHT = datetime(2026, 11, 27, 1, 45, tzinfo=UTC)


def at(hour: int, minute: int = 0) -> datetime:
    return NIGHT.replace(hour=hour, minute=minute)


@dataclass
class Machines:
    """A provider whose workers come 90 s after they were ordered, and go when they are asked."""

    coming: dict[str, datetime] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    now: datetime = NIGHT
    orders: bool = True
    counted: bool = False
    knows: bool = True

    def observe(self, pool: Pool) -> Observed:
        return Observed({name: Instance(name, {"name": name}, "running") for name in self.coming})

    def launch(self, worker: Worker) -> dict[str, Any]:
        self.coming[worker.instance] = self.now + timedelta(seconds=COLD_S)
        return {"name": worker.instance}

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise AssertionError("one by one")

    def stop(self, ref: dict[str, Any], *, force: bool = False) -> None:
        self.asked.add(ref["name"])

    def boot_log(self, ref: dict[str, Any], *, lines: int = 40) -> list[str]:
        return []

    def forget(self, instance: str, ref: dict[str, Any]) -> None:
        self.coming.pop(instance, None)

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd


class Night:
    """The clock, and everything that happens as it goes on."""

    def __init__(self) -> None:
        self.pool = factories.make_pool(now=NIGHT, slug="product-images", provider="local", base=2, max=8, price_per_hour_microusd=860_000, target_s=60.0)
        self.workflow = factories.make_workflow(now=NIGHT, pool=self.pool, slug="product-shot")
        self.fast = factories.make_version(self.workflow, now=NIGHT, inputs=SLOW, live=False, runnable=True)
        self.usual = factories.make_version(self.workflow, now=NIGHT, inputs=SLOW, runnable=True)
        self.retail = factories.make_customer(now=NIGHT, slug="retailpro")
        self.others = factories.make_customer(now=NIGHT, slug="creativeagency")
        self.machines = Machines()
        self.workers: dict[str, Worker] = {}
        self.ends: list[tuple[datetime, int, str, UUID, int]] = []
        self.free: set[str] = set()
        self.shed: Counter[str] = Counter()
        self.sizes: list[tuple[datetime, int]] = []
        self.numbers = 0
        self.now = NIGHT

    def submit(self, customer: Any, priority: str, when: datetime) -> Job | None:
        try:
            return factories.submit(customer, self.workflow, now=when, priority=priority)
        except Unavailable as refusal:
            assert int(refusal.headers["Retry-After"]) > 0
            self.shed[priority] += 1
            return None

    def go_on(self, until: datetime) -> None:
        """Tick by tick: who asked comes, who was ordered arrives, jobs end and others begin, and sizing looks."""
        while self.now < until:
            self.now += TICK
            forget()
            self.trickle()
            self.arrive()
            self.run_jobs()
            demand.recompute(now=self.now)
            emergencies.settle(fence=lambda: None, now=self.now)
            self.machines.now = self.now
            held = Pool.objects.get(id=self.pool.id)
            scaling.step(held, provider=self.machines, fence=lambda: None, epoch=1, now=self.now)
            self.leave()
            self.sizes.append((self.now, Worker.objects.filter(pool=self.pool, state__in=Worker.READY).count()))

    def trickle(self) -> None:
        """Through the night others send a job every now and then: urgent ones, and ones that can wait."""
        ticks = round((self.now - NIGHT) / TICK)
        if ticks % 6 == 0:
            self.submit(self.others, "high", self.now)
        if ticks % 10 == 0:
            self.submit(self.others, "low", self.now)

    def arrive(self) -> None:
        for instance, ready_at in self.machines.coming.items():
            if ready_at <= self.now and instance not in self.workers:
                worker, _ = membership.register(self.pool, protocol=1, instance=instance, name=instance[:20], fingerprint={}, now=ready_at)
                queue.note_idle(worker, now=ready_at)
                self.workers[instance] = Worker.objects.get(id=worker.id)
                self.free.add(instance)

    def run_jobs(self) -> None:
        """What ends until now ends at its time, and its worker takes the next job at once, as a long poll does."""
        for instance in sorted(self.free):
            self.claim(instance, self.now - TICK)
        while self.ends and self.ends[0][0] <= self.now:
            when, _, instance, job_id, attempt = heapq.heappop(self.ends)
            queue.complete(self.workers[instance], job_id=job_id, attempt=attempt, completion=queue.Completion("succeeded"), now=when)
            self.claim(instance, when)

    def claim(self, instance: str, when: datetime) -> None:
        leased = queue.claim(Worker.objects.get(id=self.workers[instance].id), now=when)
        self.free.discard(instance) if leased else self.free.add(instance)
        for one in leased:
            self.numbers += 1
            seconds = FAST_S if one.version_id == self.fast.id else USUAL_S
            heapq.heappush(self.ends, (when + timedelta(seconds=seconds), self.numbers, instance, one.job_id, one.attempt))

    def leave(self) -> None:
        for instance in self.machines.asked & set(self.machines.coming):
            if instance not in self.free and instance in self.workers:
                continue
            membership.stopped(Worker.objects.get(instance=instance), reason="drained", now=self.now)
            self.machines.coming.pop(instance)
            self.free.discard(instance)

    def live(self) -> int:
        return Worker.objects.filter(pool=self.pool, state__in=[*Worker.READY, *Worker.COMING]).count()

    def needs(self) -> list[attention.Need]:
        pools = queries_pools.pools_now(now=self.now)
        found = attention.of_pools(pools, href="/POOL", now=self.now)
        return found + emergency_words.of_backlogs(emergency_words.backlogs(pools, now=self.now), href="/POOL")


@pytest.mark.django_db
def test_the_night_of_the_launch() -> None:
    night = Night()
    pool = night.pool

    # Before two the night is quiet: the base is enough, and nothing waits long.
    night.go_on(at(2))
    assert night.live() <= 3
    assert not night.needs()

    # RetailPro's marketing adds its products at the last minute, far more than the pool's eight workers are for.
    for n in range(PRODUCTS):
        night.submit(night.retail, "normal", at(2) + timedelta(seconds=n // 2))
    night.go_on(at(2, 15))
    assert night.live() == 8
    held = ScalingDecision.objects.filter(pool=pool, at__gte=at(2)).order_by("-at", "-id").first()
    assert held is not None
    assert (held.action, held.bound) == ("hold", "maximum of 8")
    assert "maximum" in held.reason

    # The alert says what it will come to: about four hours.
    backup = next(need for need in night.needs() if need.badge == "Queue backup")
    assert backup.kind == "bad"
    assert 3.5 <= float(backup.side.removesuffix(" h")) <= 4.5, backup
    assert "delay" in backup.title

    # 02:15. Each measure is looked at in numbers first, then taken by one call.
    said = emergency_calls.preview(pool, "raise", {"max": 14, "base": 4, "until": at(6).isoformat()}, now=night.now)
    assert said.figures["workers_more"] == 6
    assert said.figures["most_cost_microusd"] == round(6 * 860_000 * 3.75)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("raise", {"base": 4, "max": 14, "until": at(6).isoformat()}),
        ("fast", {"workflow": "product-shot", "version": 1, "overflow_s": 600, "include_waiting": True, "until": at(6).isoformat()}),
        ("shed", {"priority": "low", "overflow_s": 1800, "until": at(5).isoformat()}),
    ]
    for kind, terms in calls:
        for _ in range(2):  # Sarah's finger slips: a double click
            emergency_calls.take(pool, kind, terms, actor="sarah", reason="queue four hours late", once=f"form-{kind}", now=night.now)
    assert [a.kind for a in emergencies.active(pool, now=night.now)] == ["shed", "raise", "fast"]
    changed = EmergencyAction.objects.get(kind="fast").terms["changed"]
    assert changed > 0.8 * PRODUCTS

    night.go_on(at(3))
    assert night.live() == 14
    assert night.shed["low"] > 0, "new jobs that can wait are told to come back"
    assert night.shed["high"] == night.shed["normal"] == 0

    # By six it is over: everything ran, nothing was lost, and who was urgent hardly noticed.
    night.go_on(at(6))
    jobs = Job.objects.filter(pool=pool)
    assert jobs.filter(customer=night.retail, status="succeeded").count() == PRODUCTS
    assert not jobs.filter(status="queued", created_at__lt=night.now - timedelta(minutes=5)).exists()
    assert not jobs.exclude(status__in=["succeeded", "queued", "running"]).exists()
    urgent = [(j.started_at - j.created_at).total_seconds() for j in jobs.filter(priority=0, status="succeeded") if j.started_at]
    assert max(urgent) <= USUAL_S
    done = max(j.finished_at for j in jobs.filter(customer=night.retail) if j.finished_at)
    assert at(3) < done < at(6)

    # The measures went by themselves, the size is the pool's own again, and nobody at work was stopped.
    night.go_on(at(7))
    assert emergencies.active(pool, now=night.now) == []
    assert {(row.kind, row.ended_by) for row in EmergencyAction.objects.all()} == {("raise", "expiry"), ("fast", "expiry"), ("shed", "expiry")}
    assert (floors.of(pool, now=night.now).base, floors.of(pool, now=night.now).maximum) == (2, 8)
    assert night.live() <= 3
    assert max(n for _, n in night.sizes) == 14
    assert not Attempt.objects.exclude(state__in=["succeeded", "running"]).exists()
    assert not Attempt.objects.filter(number__gt=1).exists()

    # Billed once, no more than quoted, and the fast ones for less time.
    assert reconcile.drift(now=night.now).total == 0
    assert jobs.filter(version=night.fast, status="succeeded").count() >= changed - 20
    told = jobs.filter(version=night.fast, customer=night.retail).first()
    assert told is not None
    assert told.fast["asked_version"] == 2

    # And it can be read afterwards, in words: by whom, and why each size.
    log = list(AuditEntry.objects.filter(action__startswith="emergency.").order_by("seq").values_list("actor", "action"))
    assert log[:3] == [("sarah", "emergency.raise"), ("sarah", "emergency.fast"), ("sarah", "emergency.shed")]
    assert sorted(log[3:]) == [("controller", "emergency.expire.fast"), ("controller", "emergency.expire.raise"), ("controller", "emergency.expire.shed")]
    story = list(ScalingDecision.objects.filter(pool=pool).order_by("at", "id"))
    assert all(row.reason.endswith(".") for row in story)
    assert {row.action for row in story} >= {"up", "hold", "down"}
    raised = [row for row in story if row.inputs.get("maximum") == 14]
    assert raised
    assert "raised until 06:00" in raised[0].inputs["floor_why"]
