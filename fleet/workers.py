"""Look after workers that were ordered: take back the jobs of those that are gone, and end those that should be.

Every write names the state it starts from, so a worker that registers or leaves at the same moment wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min

from fleet import providers, queue
from fleet.models import Attempt, Job, Pool, Worker
from fleet.providers.base import Provider

log = logging.getLogger(__name__)

DRAIN_GRACE = timedelta(seconds=30)
STOP_GRACE = timedelta(seconds=15)
NEVER_LAUNCHED = timedelta(seconds=10)


def look_after(pool: Pool, *, provider: Provider | None = None, fence: Callable[[], None], now: datetime) -> list[str]:
    """One round over the pool's workers; says what was done."""
    by = provider or providers.of(pool)
    done = [said for worker in Worker.objects.filter(pool=pool, state__in=Worker.LIVE).order_by("id") if (said := _check(worker, by, fence=fence, now=now))]
    _settle_processes(by, now=now)
    return done


def _check(worker: Worker, provider: Provider, *, fence: Callable[[], None], now: datetime) -> str:
    if worker.ready_at is None and worker.registered_at is not None:
        _note_ready(worker)
    if not worker.provider_ref and worker.registered_at is None and provider.orders:
        return _find_again(worker, provider, fence=fence, now=now)
    if worker.provider_ref and provider.alive(worker.provider_ref) is False:
        asked = worker.drain_asked_at is not None
        return _end(worker, "stopped", "drained" if asked else "vanished", "" if asked else "Its process ended without a word.", fence=fence, now=now)
    start = timedelta(seconds=settings.WORKER["START_S"])
    if worker.state in (Worker.State.ORDERED, Worker.State.STARTING) and now - worker.ordered_at > start:
        return _end(worker, "stopped", "start_timeout", f"It was not ready {start.total_seconds():g} s after it was ordered.", provider, fence=fence, now=now)
    silent = _patience(worker, provider, now=now)
    if worker.registered_at is not None and now - (worker.seen_at or worker.registered_at) > silent:
        return _end(worker, "lost", "lost", f"Nothing was heard of it for {silent.total_seconds():g} s.", provider, fence=fence, now=now)
    if worker.state == Worker.State.DRAINING and worker.drain_asked_at is not None and now - worker.drain_asked_at > DRAIN_GRACE:
        if not Job.objects.filter(worker=worker, status="running").exists():
            return _end(worker, "stopped", "drained", "It had nothing to do and did not leave by itself.", provider, fence=fence, now=now)
    return ""


def _note_ready(worker: Worker) -> None:
    """A worker handed a job at its very first claim was ready then, without ever having been idle."""
    first = Attempt.objects.filter(worker=worker).aggregate(at=Min("claimed_at"))["at"]
    if first is not None:
        Worker.objects.filter(id=worker.id, ready_at__isnull=True).update(ready_at=first)


def _patience(worker: Worker, provider: Provider, *, now: datetime) -> timedelta:
    """How long a worker may be silent. When nobody at all is heard it is more likely us: then as long as agents themselves wait."""
    usual = timedelta(seconds=2 * settings.WORKER["LEASE_S"])
    if Worker.objects.filter(seen_at__gt=now - usual).exists() or provider.alive(worker.provider_ref) is not True:
        return usual
    return max(usual, timedelta(seconds=settings.WORKER["SILENCE_EXIT_S"]))


def _find_again(worker: Worker, provider: Provider, *, fence: Callable[[], None], now: datetime) -> str:
    """A row without a reference: the controller died between writing it and noting the process."""
    if now - worker.ordered_at < NEVER_LAUNCHED:
        return ""
    ref = provider.find(worker.instance)
    if ref is not None:
        Worker.objects.filter(id=worker.id, provider_ref={}).update(provider_ref=ref)
        return f"{worker.name} found again"
    return _end(worker, "stopped", "never_started", "The controller ended before it was launched.", fence=fence, now=now)


def _end(worker: Worker, state: str, reason: str, message: str, provider: Provider | None = None, *, fence: Callable[[], None], now: datetime) -> str:
    """Retire the worker and put its jobs back, in one transaction; then end its process."""
    with transaction.atomic():
        fence()
        changed = Worker.objects.filter(id=worker.id, state=worker.state).update(
            state=state, state_since=now, stopped_at=now, stop_reason=reason, stop_message=message, idle_since=None
        )
        if not changed:
            return ""
        taken = queue.requeue_worker(worker, now=now)
    if provider is not None:
        provider.stop(worker.provider_ref, force=True)
    log.warning("worker ended", extra={"worker": worker.name, "reason": reason, "jobs_taken_back": taken})
    return f"{worker.name} {reason}"


def _settle_processes(provider: Provider, *, now: datetime) -> None:
    """Note processes whose row does not know them yet. Processes whose worker is retired or was never written down: ask, then end, then forget them."""
    known = provider.known()
    if not known:
        return
    rows = {w.instance: w for w in Worker.objects.filter(instance__in=known).only("instance", "provider_ref", "stopped_at")}
    for instance, ref in known.items():
        row = rows.get(instance)
        if row is not None and row.stopped_at is None:
            if not row.provider_ref:  # it registered, but the controller ended before it noted the process
                Worker.objects.filter(id=row.id, provider_ref={}).update(provider_ref=ref)
            continue
        if provider.alive(ref) is False:
            provider.forget(instance)
        elif row is None or (row.stopped_at is not None and now - row.stopped_at > STOP_GRACE):
            provider.stop(ref, force=True)
