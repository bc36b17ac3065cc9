"""A pool with a long queue, for tests of emergency measures."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from billing.models import Customer
from builds.models import Version, Workflow
from fleet import job_times, measures, overflow, queue
from fleet.models import Job, Pool, Worker
from tests import factories

SLOW = [
    {"name": "width", "node": "1", "input": "width", "type": "integer", "title": "Width", "default": 64, "minimum": 1, "maximum": 4096},
    {"name": "steps", "node": "1", "input": "batch_size", "type": "integer", "title": "Steps", "default": 30, "minimum": 1, "maximum": 100},
    {"name": "seed", "node": "1", "input": "color", "type": "integer", "title": "Seed", "minimum": 0, "maximum": 16777215, "randomize": True},
]


class World:
    """One pool, one workflow with a live version and a cheaper one, two customers, one worker; a job takes 10 s."""

    def __init__(self, now: datetime, **pool: Any) -> None:
        self.now = now
        self.pool: Pool = factories.make_pool(now=now, **({"base": 1, "max": 4} | pool))
        self.workflow: Workflow = factories.make_workflow(now=now, pool=self.pool)
        self.cheap: Version = factories.make_version(self.workflow, now=now, inputs=SLOW[:1] + SLOW[2:], live=False, runnable=True)
        self.live: Version = factories.make_version(self.workflow, now=now, inputs=SLOW, runnable=True)
        self.batch: Customer = factories.make_customer(now=now)
        self.other: Customer = factories.make_customer(now=now)
        self.worker: Worker = factories.make_worker(self.pool, now=now)
        self.past: Customer = factories.make_customer(now=now - timedelta(days=1))
        self.took(10.0)

    def took(self, seconds: float, *, runs: int = 3) -> None:
        """History: runs of the live version that took so long, an hour ago."""
        for n in range(runs):
            ago = self.now - timedelta(hours=1, seconds=-n * (seconds + 1))
            factories.submit(self.past, self.workflow, now=ago)
            (leased,) = queue.claim(self.worker, now=ago)
            queue.complete(self.worker, job_id=leased.job_id, attempt=1, completion=queue.Completion("succeeded"), now=ago + timedelta(seconds=seconds))
        Worker.objects.filter(id=self.worker.id).update(idle_since=self.now)
        forget()

    def fill(self, count: int, *, customer: Customer | None = None, **fields: Any) -> list[Job]:
        return [factories.submit(customer or self.batch, self.workflow, now=self.now, **fields) for _ in range(count)]


def forget() -> None:
    """As if a second had gone by."""
    job_times.forget()
    measures.forget()
    overflow.forget()
