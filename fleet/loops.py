"""The fleet's control loops. Thin: each says what it did in a few words; the rules are in the modules it calls."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Max
from django.utils import timezone

from controlplane.kernel.loops import Loop, LostLead, Tick
from fleet import decisions, demand, ejecting, emergencies, queue, rollups, scaling, smoke, tasks, watching, webhooks, worker_hours, workers
from fleet.models import Job, Pool
from fleet.providers.local import Local

log = logging.getLogger(__name__)

KEEP_EVERY = timedelta(seconds=5)
_cut_short: dict[str, int] = {}
"""By loop, the pool with which its last round lost the lead: the next begins behind it, or a slow provider would keep the others from their turn."""


def _autoscale(tick: Tick) -> str:
    def size(pool: Pool, fence: Callable[[], None]) -> str:
        decision = scaling.step(pool, fence=fence, epoch=tick.epoch, now=tick.now)
        return f"{pool.slug}: {decision.action}" + (f" {decision.applied:+d}" if decision.applied else "")

    def failed(pool: Pool, error: Exception) -> None:
        with transaction.atomic():
            tick.fence()
            decisions.note_failed(pool, error, epoch=tick.epoch, now=tick.now)

    return _each_pool(tick, size, failed=failed)


def _workers(tick: Tick) -> str:
    return _each_pool(tick, lambda pool, fence: ", ".join(workers.look_after(pool, fence=fence, now=tick.now)))


def _each_pool(tick: Tick, step: Callable[[Pool, Callable[[], None]], str], *, failed: Callable[[Pool, Exception], None] = lambda pool, error: None) -> str:
    """Take a step for every pool. One that fails is said to and leaves the others their turn; only when all fail has the loop failed.

    The step is given a fence that also renews the lead where the last renewal is `KEEP_EVERY` ago: what it does may be slow, many times.
    """
    said: list[str] = []
    errors: list[Exception] = []
    kept = timezone.now()

    def fence() -> None:
        nonlocal kept
        tick.fence()
        if timezone.now() - kept > KEEP_EVERY:
            kept = timezone.now()
            tick.keep(kept)

    pools = list(Pool.objects.all())
    slow = _cut_short.get(tick.name)
    begin = next((i + 1 for i, pool in enumerate(pools) if pool.id == slow), 0)
    for pool in [*pools[begin:], *pools[:begin]]:
        if timezone.now() - kept > KEEP_EVERY:  # a provider was slow with a pool before
            kept = timezone.now()
            tick.keep(kept)
        _cut_short[tick.name] = pool.id
        try:
            said.append(step(pool, fence))
        except LostLead:
            raise
        except Exception as error:
            log.exception("a pool failed", extra={"pool": pool.slug, "loop": tick.name})
            errors.append(error)
            said.append(f"{pool.slug}: failed")
            with contextlib.suppress(DatabaseError):
                failed(pool, error)
    _cut_short.pop(tick.name, None)
    if errors and len(errors) == len(pools):
        raise errors[0]
    return ", ".join(filter(None, said))


def _leases(tick: Tick) -> str:
    watched = watching.since("leases", now=tick.now)
    if watched is not None and tick.now - watched < timedelta(seconds=settings.WORKER["LEASE_S"]):
        return "watching again: workers are heard first"
    if not Job.objects.filter(status="running", lease_until__lt=tick.now).exists():
        return "none expired"
    with transaction.atomic():
        tick.fence()
        return f"{queue.expire_leases(now=tick.now)} expired"


def _deadlines(tick: Tick) -> str:
    if not Job.objects.filter(status__in=["queued", "running"], deadline_at__lte=tick.now, cancel_asked_at__isnull=True).exists():
        return "none passed"
    with transaction.atomic():
        tick.fence()
        return f"{queue.expire_deadlines(now=tick.now)} passed"


def _fair_clock(tick: Tick) -> str:
    """Fair time goes on with the jobs that start, and never back."""
    tags = Job.objects.filter(status="running").values("pool_id").annotate(tag=Max("fair_tag"))
    moved = 0
    for row in tags:
        if Pool.objects.filter(id=row["pool_id"], virtual_time__lt=row["tag"]).exists():
            with transaction.atomic():
                tick.fence()
                moved += Pool.objects.filter(id=row["pool_id"], virtual_time__lt=row["tag"]).update(virtual_time=row["tag"])
    return f"{moved} moved"


def _rollups(tick: Tick) -> str:
    return f"{rollups.recompute(now=tick.now)} rows"


def _demand(tick: Tick) -> str:
    return f"{demand.recompute(now=tick.now)} rows"


def _blame(tick: Tick) -> str:
    said: list[str] = []
    for pool in Pool.objects.all():
        tick.keep(timezone.now())
        said += ejecting.step(pool, fence=tick.fence, now=tick.now)
    return ", ".join(said)


def _worker_hours(tick: Tick) -> str:
    return f"{worker_hours.recompute(now=tick.now)} rows"


def _webhooks(tick: Tick) -> str:
    return webhooks.step(tick)


def _smoke(tick: Tick) -> str:
    return smoke.step(fence=tick.fence, now=tick.now, hand_over=tasks.run_smoke_later)


def _emergencies(tick: Tick) -> str:
    return emergencies.settle(fence=tick.fence, now=tick.now)


def _logs(tick: Tick) -> str:
    Local().cap_logs()
    return ""


LOOPS = [
    Loop("autoscale", 1.0, _autoscale, lease_s=25.0),
    Loop("workers", 1.0, _workers, lease_s=25.0),
    Loop("leases", 1.0, _leases),
    Loop("deadlines", 1.0, _deadlines),
    Loop("fair-clock", 1.0, _fair_clock),
    Loop("rollups", 2.0, _rollups),
    Loop("demand", 2.0, _demand),
    Loop("blame", 10.0, _blame, lease_s=45.0),
    Loop("worker-hours", 60.0, _worker_hours, lease_s=45.0),
    Loop("webhooks", 0.5, _webhooks, lease_s=45.0),
    Loop("smoke", 2.0, _smoke),
    Loop("emergencies", 1.0, _emergencies, lease_s=45.0),
    Loop("worker-logs", 30.0, _logs),
]
