"""Put the demo in: a pool, plans, customers with keys, and the catalogue. Each piece is made once."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.conf import settings

from billing import customers, keys
from billing.models import Customer, PlanRevision
from builds import importing, versions
from builds.models import Channel, Workflow
from controlplane import credentials
from controlplane.demo import sound
from controlplane.demo.catalogue import ENTRIES, HERE
from controlplane.kernel import blobs
from fleet import pools
from fleet.models import Pool

AUTHOR = "demo"
POOL = "default"
PLANS = (
    # slug, name, $ a job, $ a GPU-second, $ a month, jobs at once, requests a minute, weight, highest priority
    ("studio", "Studio", 0.012, 0.0040, 2_000, 200, 1200, 300, "high"),
    ("growth", "Growth", 0.018, 0.0055, 300, 60, 300, 100, "normal"),
    ("starter", "Starter", 0.030, 0.0080, 25, 10, 60, 40, "normal"),
)
CUSTOMERS = (("northwind", "Northwind Retail", "studio"), ("lumen", "Lumen Agency", "growth"), ("kite", "Kite Notes", "starter"))
MAIN_CUSTOMER = "northwind"
DEMO_TERMS: dict[str, Any] = {"base": 1, "maximum": 4, "target_s": 10.0, "knobs": {"hold_s": 20.0, "window_s": 60.0}}
"""A short target and a short hold, so that the pool is seen to grow and to shrink within two minutes."""


def seed(*, say: Callable[[str], None], now: datetime) -> bool:
    """Everything that is missing; tells whether the catalogue was empty before."""
    if not Pool.objects.exists():
        pools.create(slug=POOL, name="Default", provider="local", price_per_hour_microusd=450_000, actor=AUTHOR, now=now, **DEMO_TERMS)
    ensure_customers(now=now)
    first = not Workflow.objects.exists()
    if first:
        say("making the demo catalogue")
    ensure_catalogue(now=now)
    return first


def ensure_customers(*, now: datetime) -> None:
    """Plans, customers, and a key for each, kept where only the owner of the files can read it."""
    plans = {plan[0]: _plan(plan, now=now) for plan in PLANS}
    known: dict[str, str] = dict(credentials.read().get("keys") or {})
    for slug, name, plan in CUSTOMERS:
        customer = Customer.objects.filter(slug=slug).first() or customers.create(slug=slug, name=name, plan_revision=plans[plan], actor=AUTHOR, now=now)
        if slug not in known or not customer.keys.filter(prefix=known[slug][:11], revoked_at__isnull=True).exists():
            known[slug] = keys.issue(customer=customer, name="first key", now=now)[1]
    credentials.keep(keys=known, api_key=known[MAIN_CUSTOMER])


def ensure_catalogue(*, now: datetime) -> None:
    """Import what is not there yet and put it into production; a workflow somebody has changed since is left alone."""
    files: dict[str, str] = {}
    for entry in ENTRIES:
        if Workflow.objects.filter(slug=entry.slug, channels__name=Channel.Name.PRODUCTION).exists():
            continue
        if not files:
            files = _files(now=now)
        imported = importing.import_graph(
            document=entry.graph,
            slug=entry.slug,
            name=entry.name,
            description=entry.description,
            category=entry.category,
            pool_slug=POOL,
            message="First version of the demo catalogue",
            author=AUTHOR,
            expose=entry.expose(files=files),
            timeout_s=entry.timeout_s,
            now=now,
        )
        Workflow.objects.filter(pk=imported.workflow.pk).update(quality=entry.quality)
        versions.promote(workflow=imported.workflow, channel=Channel.Name.PRODUCTION, version=imported.version, actor=AUTHOR, reason="demo", now=now)


def _files(*, now: datetime) -> dict[str, str]:
    """The default files of file inputs, kept like any other bytes."""
    made = {"picture": ((HERE / "picture.jpg").read_bytes(), "image/jpeg"), "sound": (sound.chord(), "audio/flac")}
    return {
        name: blobs.put(io.BytesIO(data), media_type=media_type, max_bytes=settings.MAX_FILE_BYTES, now=now).sha256 for name, (data, media_type) in made.items()
    }


def _plan(row: tuple[str, str, float, float, int, int, int, int, str], *, now: datetime) -> PlanRevision:
    slug, name, per_job, per_second, month, active, minute, weight, priority = row
    held = PlanRevision.objects.filter(plan__slug=slug).order_by("-number").first()
    return held or customers.publish_plan(
        slug=slug,
        name=name,
        price_per_job_microusd=round(per_job * 1e6),
        price_per_gpu_second_microusd=round(per_second * 1e6),
        monthly_limit_microusd=month * 1_000_000,
        max_active_jobs=active,
        requests_per_minute=minute,
        weight=weight,
        max_priority=priority,
        now=now,
    )
