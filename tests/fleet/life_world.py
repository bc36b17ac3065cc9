"""A provider whose machines are names in a dictionary, and a pool, its workers and jobs around it: what tests of a worker's life build on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fleet import membership, queue, scaling, workers
from fleet.models import Job, Pool, PoolOffer, Worker
from fleet.providers.base import Instance, Observed, ProviderError, Refused, Unavailable
from tests import factories


@dataclass
class Machines:
    """Each machine lives until told otherwise. `bad_images` never start; `notice` is seconds until a machine is taken away."""

    running: dict[str, bool] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    notice: dict[str, float] = field(default_factory=dict)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    launched: int = 0
    bad_images: set[str] = field(default_factory=set)
    refuse: ProviderError | None = None
    down: bool = False
    orders: bool = True
    counted: bool = False
    knows: bool = True

    def observe(self, pool: Pool) -> Observed:
        if self.down:
            raise Unavailable("The engine does not answer.")
        return Observed({name: self._seen(name, alive) for name, alive in self.running.items()})

    def _seen(self, name: str, alive: bool) -> Instance:
        bad = alive and self.images.get(name) in self.bad_images
        phase = "running" if alive and not bad else "pending" if bad else "ended"
        return Instance(name, {"name": name}, phase, failed=bad, why="Its image has no agent." if bad else "", preempt_in_s=self.notice.get(name))

    def launch(self, worker: Worker) -> dict[str, Any]:
        if self.down:
            raise Unavailable("The engine does not answer.")
        if self.refuse is not None:
            raise self.refuse
        self.launched += worker.instance not in self.running
        self.running[worker.instance] = True
        self.images[worker.instance] = worker.image
        return {"name": worker.instance}

    def resize(self, pool: Pool, *, wanted: int, victims: Sequence[Worker] = ()) -> None:
        raise Refused("one by one")

    def stop(self, ref: dict[str, Any], *, force: bool = False) -> None:
        self.stopped.append((ref.get("name", ""), force))
        if force:
            self.running.pop(ref.get("name", ""), None)

    def boot_log(self, ref: dict[str, Any], *, lines: int = 40) -> list[str]:
        return ["ImportError: no module named agent"]

    def forget(self, instance: str, ref: dict[str, Any]) -> None:
        self.running.pop(instance, None)

    def tend(self, pool: Pool) -> list[str]:
        return []

    def price(self, pool: Pool, offer: PoolOffer | None) -> int:
        return pool.price_per_hour_microusd


class World:
    """A pool with a clock of its own, stepped like the loops step it."""

    def __init__(self, now: datetime, **terms: Any) -> None:
        self.now = now
        self.pool = factories.make_pool(now=now, **({"provider": "local", "base": 2, "max": 4, "policy": "threshold"} | terms))
        self.machines = Machines()
        self.customer = factories.make_customer(now=now)
        self.workflow = factories.make_runnable(now=now, pool=self.pool)
        self.epoch = 1
        self.mute: set[str] = set()
        """Instances whose agents are no longer heard."""

    @property
    def fresh_pool(self) -> Pool:
        return Pool.objects.get(id=self.pool.id)

    def live(self, *states: str) -> list[Worker]:
        return list(Worker.objects.filter(pool=self.pool, state__in=states or Worker.LIVE).order_by("id"))

    def submit(self, count: int = 1) -> list[Job]:
        return [factories.submit(self.customer, self.workflow, now=self.now) for _ in range(count)]

    def worker(self, **fields: Any) -> Worker:
        """An idle worker with a machine."""
        made = factories.make_worker(self.pool, now=self.now, **fields)
        Worker.objects.filter(id=made.id).update(provider_ref={"name": made.instance})
        self.machines.running[made.instance] = True
        return Worker.objects.get(id=made.id)

    def tick(self, seconds: float = 1.0, *, agents: bool = True) -> None:
        """The clock goes on, agents register and speak, both loops take a turn."""
        self.now += timedelta(seconds=seconds)
        if agents:
            self.speak()
        scaling.step(self.fresh_pool, provider=self.machines, fence=lambda: None, epoch=self.epoch, now=self.now)
        workers.look_after(self.fresh_pool, provider=self.machines, fence=lambda: None, now=self.now)

    def run(self, seconds: int) -> None:
        for _ in itertools.repeat(None, seconds):
            self.tick()

    def speak(self) -> None:
        """Every machine that can runs an agent: it registers, says that it lives, and leaves when it was asked to and has nothing to do."""
        for worker in self.live():
            if (
                worker.instance in self.mute
                or not self.machines.running.get(worker.instance)
                or self.machines.images.get(worker.instance) in self.machines.bad_images
            ):
                continue
            if worker.state == Worker.State.ORDERED:
                membership.register(self.pool, protocol=1, instance=worker.instance, name=worker.name, fingerprint={}, now=self.now)
                continue
            running = list(Job.objects.filter(worker=worker, status="running"))
            reports = [queue.Report(job.id, job.attempt, progress=job.progress) for job in running]
            if worker.drain_asked_at is not None and not running:
                membership.stopped(worker, reason="drained", now=self.now)
                self.machines.running[worker.instance] = False
                continue
            queue.heartbeat(worker, state="busy" if running else "idle", reports=reports, now=self.now)

    def claim(self, worker: Worker) -> list[queue.Assignment]:
        return queue.claim(Worker.objects.get(id=worker.id), now=self.now)

    def done(self, job: Job) -> None:
        held = Job.objects.get(id=job.id)
        queue.complete(held.worker, job_id=held.id, attempt=held.attempt, completion=queue.Completion("succeeded"), now=self.now)
