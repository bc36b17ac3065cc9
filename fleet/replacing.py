"""Replace workers without a gap: another is ordered first, and the old one leaves when it is ready.

Until then the scaler counts the two as one (`fleet.observing`), so a replacement is neither taken for growth nor shrunk away. One that
does not start is tried again a few times; the old worker stays. A worker that was taken out as faulty goes after a while of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict
from fleet import floors, launching, leaving, membership, providers
from fleet.models import Pool, Worker, WorkerChange
from fleet.providers.base import Provider
from fleet.sizing.bounding import wait_s

SCALER = "scaler"
MOST_TRIES = 3
SURGE = 1
"""How many workers above its maximum a pool may have while one is replaced."""


@transaction.atomic
def ask(worker: Worker, *, provider: Provider | None = None, actor: str, reason: str = "", now: datetime) -> Worker | None:
    """Order another worker in place of `worker`; returns its row, or None where the provider makes the rows. Asked twice it is one.

    Raises Conflict when the worker leaves, the pool orders none, or another of the pool is just being replaced.
    """
    pool = Pool.objects.select_for_update().get(id=worker.pool_id)
    held = Worker.objects.select_for_update().get(id=worker.id)
    by = provider or providers.of(pool)
    if held.state in Worker.GONE or held.drain_asked_at is not None:
        raise Conflict("worker_draining", f"{held.name} is gone or already leaving.", "Nothing needs to be replaced.")
    if not by.orders:
        raise Conflict("pool_orders_none", f"Workers of {pool.name} are started by somebody else.", "Start another there, then drain this one.")
    if pool.halted_at is not None:
        raise Conflict("pool_halted", f"Ordering for {pool.name} is stopped: {pool.halted_reason}"[:300], "Resume the pool first.")
    under_way = _under_way(held)
    if under_way is not None:
        return under_way
    if by.counted:
        _note(held, actor=actor, reason=reason, now=now)
        membership.cordon(held, actor=actor, reason=reason, now=now)  # no longer counted, so the scaler asks for one more
        return None
    live = Worker.objects.filter(pool=pool, state__in=Worker.LIVE).exclude(state=Worker.State.DRAINING).count()
    if live >= floors.of(pool, now=now).maximum + SURGE:
        raise Conflict(
            "pool_full", f"{pool.name} already has {live:,} workers, one more than its maximum.", "Wait for the replacement under way, or drain this one."
        )
    _note(held, actor=actor, reason=reason, now=now)
    return _order(held, pool, now=now)


def step(pool: Pool, *, provider: Provider, fence: Callable[[], None], now: datetime) -> list[str]:
    """One round: launch what was asked for, let go whom a ready worker replaces, try again what did not start; says what was done."""
    said: list[str] = []
    mine = Worker.objects.filter(pool=pool, state__in=Worker.LIVE)
    fresh = list(mine.filter(replaces__isnull=False).select_related("pool", "offer", "replaces"))
    unlaunched = [w for w in fresh if w.state == Worker.State.ORDERED and not w.provider_ref]
    if unlaunched and provider.orders and not provider.counted:
        said += launching.launch(unlaunched, provider, now=now)

    def let_go(worker: Worker, reason: str) -> None:
        said.append(leaving.let_go(worker, pool, provider, actor=SCALER, reason=reason, fence=fence, now=now))

    for by in fresh:
        old = by.replaces
        if by.state in Worker.READY and by.cordoned_at is None and by.preempt_at is None and old is not None and _stays(old):
            let_go(old, f"{by.name}, which replaces it, is ready.")
    asked = mine.filter(drain_asked_at__isnull=True, changes__kind=WorkerChange.Kind.REPLACING)
    for old in asked.distinct().order_by("id"):
        if provider.counted and (found := _counted(old)) is not None:
            let_go(old, f"{found.name}, which replaces it, is ready.")
        elif not provider.counted and provider.orders and pool.halted_at is None and (again := _again(old, pool, fence=fence, now=now)):
            said.append(again)
    for faulty in mine.filter(state=Worker.State.FAULTED, faulted_at__lt=now - timedelta(seconds=settings.WORKER["FAULT_KEEP_S"])):
        let_go(faulty, "It was taken out, and has been kept long enough.")
    return said


def _stays(worker: Worker) -> bool:
    return worker.state in Worker.LIVE and worker.drain_asked_at is None


def _again(old: Worker, pool: Pool, *, fence: Callable[[], None], now: datetime) -> str | None:
    """Another try at a replacement that ended before it was ready."""
    asked = WorkerChange.objects.filter(worker=old, kind=WorkerChange.Kind.REPLACING).order_by("-at", "-id").first()
    if asked is None or asked.note.startswith(GAVE_UP):
        return None
    tries = list(old.replaced_by.filter(ordered_at__gte=asked.at).order_by("-ordered_at"))
    if not tries or any(w.ready_at is not None or w.state in Worker.LIVE for w in tries):  # one that was ready once is the scaler's
        return None
    last = tries[0].stopped_at or tries[0].ordered_at
    if len(tries) < MOST_TRIES and 0 <= (now - last).total_seconds() < wait_s(len(tries)):
        return None
    with transaction.atomic():
        fence()
        if len(tries) >= MOST_TRIES:
            note = f"{GAVE_UP} {len(tries)} replacements did not start. {tries[0].stop_message}"
            WorkerChange.objects.create(worker=old, at=now, kind=WorkerChange.Kind.REPLACING, note=note[:500], actor=SCALER)
            return f"{old.name} stays: no replacement started"
        fresh = _order(old, pool, now=now)
    return f"{fresh.name} ordered in place of {old.name}"


GAVE_UP = "Given up:"


def _counted(old: Worker) -> Worker | None:
    """Where the provider makes the rows, a worker that became ready after one was asked for is the replacement."""
    if old.cordoned_at is None or old.replaced_by.exists():
        return None
    fresh = Worker.objects.filter(
        pool=old.pool_id, state__in=Worker.READY, replaces__isnull=True, cordoned_at__isnull=True, preempt_at__isnull=True, ordered_at__gte=old.cordoned_at
    )
    by = fresh.order_by("ordered_at").first()
    if by is not None:
        Worker.objects.filter(id=by.id).update(replaces=old)
    return by


def _under_way(worker: Worker) -> Worker | None:
    return worker.replaced_by.filter(state__in=Worker.LIVE, drain_asked_at__isnull=True).order_by("-ordered_at").first()


def _order(old: Worker, pool: Pool, *, now: datetime) -> Worker:
    """The row of another worker of the same kind; the workers loop launches it."""
    mark = secrets.token_hex(8)
    return Worker.objects.create(
        pool=pool,
        name=f"w-{mark[:4]}",
        instance=f"{pool.slug}-{mark}",
        state=Worker.State.ORDERED,
        state_since=now,
        ordered_at=now,
        replaces=old,
        offer=old.offer,
        market=old.market,
        gpu=old.gpu,
        image=pool.image,
        price_per_hour_microusd=old.offer.price_per_hour_microusd if old.offer is not None else pool.price_per_hour_microusd,
    )


def _note(worker: Worker, *, actor: str, reason: str, now: datetime) -> None:
    WorkerChange.objects.create(worker=worker, at=now, kind=WorkerChange.Kind.REPLACING, note=reason[:500], actor=actor[:120])
    audit.record(actor=actor, action="worker.replace", object_type="worker", object_id=str(worker.id), after={"name": worker.name}, reason=reason, now=now)
