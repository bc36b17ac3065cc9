"""A little past for an empty installation: more than fifty jobs of all customers, through admission and the queue like any other.

They are sent a few at a time with low priority, so that whoever tries the first call does not wait behind them. One
fails, one is canceled.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from django.utils import timezone

from billing.models import Customer
from builds.models import Workflow
from controlplane.demo.seeding import CUSTOMERS
from controlplane.kernel.errors import WorkflowError
from fleet import admission, queue
from fleet.models import Job

JOBS = 55
FIRST_PAUSE_S = 12.0
MOST_WAITING = 1
MIX = (("first-image", 10), ("headline", 24), ("sunrise-loop", 6), ("four-variations", 4), ("echo-chamber", 5), ("poster-print", 5), ("night-lights", 1))
BAD_PATTERNS = ("([a-z",)
WORDS = ("autumn sale starts   today", "  NEW in the shop:   wool", "notes on   a quiet evening", "kites above the harbour")


@dataclass(frozen=True)
class Planned:
    """One job to send."""

    customer: str
    workflow: str
    inputs: dict[str, Any] = field(default_factory=dict)
    cancel: bool = False


def plan(*, seed: int = 7) -> list[Planned]:
    """Which jobs, in which order: the same every time."""
    rng = random.Random(seed)
    slugs = [slug for slug, count in MIX for _ in range(count)]
    rng.shuffle(slugs)
    jobs, failed = [], 0
    for slug in slugs:
        customer = rng.choices([slug for slug, _, _ in CUSTOMERS], weights=[5, 3, 2])[0]
        inputs: dict[str, Any] = {}
        if slug == "headline":
            inputs["text"] = rng.choice(WORDS)
            if failed < len(BAD_PATTERNS) and rng.random() < 0.5:
                inputs["find"] = BAD_PATTERNS[failed]
                failed += 1
        elif slug == "first-image":
            inputs |= {"size": rng.choice([480, 640, 960]), "grain": round(rng.uniform(0, 0.3), 2)}
        elif slug == "four-variations":
            inputs["count"] = rng.choice([1, 2, 4])
        elif slug == "poster-print":
            inputs["inks"] = rng.choice([3, 6, 12])
        jobs.append(Planned(customer, slug, inputs))
    jobs.insert(len(jobs) // 2, Planned("northwind", "night-lights", cancel=True))
    return jobs


def make(*, stopping: Event) -> int:
    """Send the planned jobs, never more than a few waiting; the number sent."""
    sent = 0
    customers = {c.slug: c for c in Customer.objects.select_related("plan_revision").filter(slug__in=[slug for slug, _, _ in CUSTOMERS])}
    workflows = {w.slug: w for w in Workflow.objects.all()}
    if stopping.wait(FIRST_PAUSE_S):
        return sent
    for planned in plan():
        while Job.objects.filter(status="queued").count() >= MOST_WAITING:
            if stopping.wait(0.5):
                return sent
        try:
            job = admission.submit(
                customer=customers[planned.customer],
                api_key=None,
                workflow=workflows[planned.workflow],
                inputs=planned.inputs,
                priority="low",
                source="demo",
                now=timezone.now(),
            ).job
            sent += 1
            if planned.cancel:
                if stopping.wait(1.0):
                    return sent
                queue.cancel(job_id=job.id, now=timezone.now())
        except (WorkflowError, KeyError):
            continue  # somebody changed the demo meanwhile
        if stopping.wait(0.3):
            return sent
    return sent
