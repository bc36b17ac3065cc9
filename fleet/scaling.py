"""Change the number of a pool's workers: look, ask the rule, write down the decision, then do it.

A worker's row is written before the provider is asked for it, so a crash in between leaves a row that `fleet.workers`
finds; the row's instance name makes a second launch for it impossible. A decision to leave things as they are, like the
one before it, is not a new row: the old one says how often it was repeated, and what was seen last.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Max, Min
from django.db.models.functions import Coalesce

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict
from fleet import providers, scaling_rule
from fleet.models import Job, Pool, ScalingDecision, Worker
from fleet.providers.base import Provider, ProviderError
from fleet.scaling_rule import Decision, Seen, WorkerSeen

log = logging.getLogger(__name__)

FAILED_STARTS = ("vanished", "start_timeout", "crash", "order_failed", "lost")
EARLY = timedelta(seconds=60)
RESUMED = "operator"
"""The policy named on the row that records a resumption."""


def step(pool: Pool, *, provider: Provider | None = None, fence: Callable[[], None], epoch: int, now: datetime) -> Decision:
    """One decision for `pool`, recorded and carried out. `fence` is called in the recording transaction."""
    by = provider or providers.of(pool)
    seen = observe(pool, now=now)
    decision = scaling_rule.decide(seen)
    with transaction.atomic():
        fence()
        victim = _retire(decision, now=now)
        if decision.action == "down" and victim is None:
            return decision  # it took a job meanwhile: look again next time
        ordered = [_write_ahead(pool, now=now) for _ in range(max(0, decision.applied))]
        if decision.action == "halted" and pool.halted_at is None:
            Pool.objects.filter(id=pool.id, halted_at__isnull=True).update(halted_at=now, halted_reason=decision.reason[:300])
        row = _record(pool, seen, decision, epoch=epoch, now=now)
    outcome = ""
    if victim is not None:
        by.stop(victim.provider_ref)
        outcome = f"{victim.name} was asked to leave."
    for worker in ordered:
        outcome = _launch(worker, by, now=now)
    if outcome:
        ScalingDecision.objects.filter(id=row).update(outcome=outcome[:300])
    return decision


def observe(pool: Pool, *, now: datetime) -> Seen:
    """What the rule is shown of a pool."""
    workers = [
        WorkerSeen(str(id_), state, None if idle_since is None else max(0.0, (now - idle_since).total_seconds()))
        for id_, state, idle_since in Worker.objects.filter(pool=pool, state__in=Worker.LIVE).order_by("id").values_list("id", "state", "idle_since")
    ]
    failures = _failed_starts(pool, now=now)
    waiting = Job.objects.filter(pool=pool, status="queued")
    if workers:  # a smoke job can wait for one of these; no worker is bought for it beside them
        waiting = waiting.exclude(source=Job.SMOKE)
    return Seen(
        queue=waiting.count(),
        workers=workers,
        base=pool.base,
        max=pool.max,
        queue_per_worker=pool.queue_per_worker,
        idle_s=pool.idle_s,
        price_per_hour_microusd=pool.price_per_hour_microusd,
        start_failures=len(failures),
        last_failure_age_s=(now - max(failures)).total_seconds() if failures else None,
        halted=pool.halted_at is not None,
        halted_reason=pool.halted_reason,
    )


@transaction.atomic
def resume(pool: Pool, *, actor: str, now: datetime) -> None:
    """Order workers again after a crash loop; failures before this moment no longer count. Raises Conflict when it is not halted."""
    held = Pool.objects.select_for_update().get(id=pool.id)
    if held.halted_at is None:
        raise Conflict("pool_not_halted", f"Ordering for {held.name} is not stopped.", "Nothing needs to be done.")
    before = held.halted_reason
    held.halted_at, held.halted_reason = None, ""
    held.save(update_fields=["halted_at", "halted_reason"])
    ScalingDecision.objects.create(
        pool=held, at=now, last_seen_at=now, policy=RESUMED, inputs={}, action="hold", wanted=0, applied=0, reason=f"{actor} resumed ordering."[:300], epoch=0
    )
    audit.record(actor=actor, action="pool.resume", object_type="pool", object_id=held.slug, before={"halted": before}, after={"halted": ""}, now=now)
    pool.halted_at, pool.halted_reason = None, ""


def _failed_starts(pool: Pool, *, now: datetime) -> list[datetime]:
    """When workers of this pool died without having done anything, since the last one that became ready or was resumed."""
    since = now - timedelta(seconds=scaling_rule.FAILURE_WINDOW_S)
    resumed = ScalingDecision.objects.filter(pool=pool, policy=RESUMED, at__gt=since).aggregate(at=Max("at"))["at"]
    since = max(since, resumed or since)
    # A worker handed a job at its very first claim is ready without ever having been idle.
    ready_at = Coalesce("ready_at", Min("attempts__claimed_at"))
    gone = Worker.objects.filter(pool=pool, state__in=["stopped", "lost"], stopped_at__gt=since, stop_reason__in=FAILED_STARTS, jobs_done=0)
    failed = [at for at, ready in gone.annotate(ready=ready_at).values_list("stopped_at", "ready") if at is not None and (ready is None or at - ready < EARLY)]
    if not failed:
        return []
    recent = Worker.objects.filter(pool=pool, ordered_at__gt=since - EARLY).annotate(ready=ready_at)
    good = recent.aggregate(at=Max("ready"))["at"]
    return [at for at in failed if good is None or at > good]


def _write_ahead(pool: Pool, *, now: datetime) -> Worker:
    mark = secrets.token_hex(8)
    return Worker.objects.create(pool=pool, name=f"w-{mark[:4]}", instance=f"{pool.slug}-{mark}", state=Worker.State.ORDERED, state_since=now, ordered_at=now)


def _launch(worker: Worker, provider: Provider, *, now: datetime) -> str:
    try:
        ref = provider.order(worker)
    except ProviderError as error:
        Worker.objects.filter(id=worker.id).update(state="stopped", state_since=now, stopped_at=now, stop_reason="order_failed", stop_message=str(error)[:500])
        log.warning("worker not ordered", extra={"worker": worker.name, "why": str(error)})
        return f"{worker.name} could not be ordered: {error}"
    Worker.objects.filter(id=worker.id).update(provider_ref=ref)
    return f"{worker.name} was ordered."


def _retire(decision: Decision, *, now: datetime) -> Worker | None:
    """Mark the victim as leaving, unless it is no longer idle."""
    if decision.action != "down" or decision.victim is None:
        return None
    worker = Worker.objects.select_for_update().filter(id=decision.victim, state=Worker.State.IDLE).first()
    if worker is None or Job.objects.filter(worker=worker, status="running").exists():
        return None
    Worker.objects.filter(id=worker.id).update(state=Worker.State.DRAINING, state_since=now, drain_asked_at=now, idle_since=None)
    return worker


def _record(pool: Pool, seen: Seen, decision: Decision, *, epoch: int, now: datetime) -> int:
    """The row of this decision: the last one again when nothing but the time differs."""
    held: dict[str, Any] = {
        "policy": scaling_rule.NAME,
        "action": decision.action,
        "wanted": decision.wanted,
        "applied": decision.applied,
        "bound": decision.bound[:200],
    }
    latest: dict[str, Any] = {"reason": decision.reason[:300], "inputs": asdict(seen), "last_seen_at": now, "epoch": epoch}
    last = ScalingDecision.objects.filter(pool=pool).order_by("-at", "-id").first()
    if last is not None and decision.applied == 0 and all(getattr(last, name) == value for name, value in held.items()):
        ScalingDecision.objects.filter(id=last.id).update(repeats=F("repeats") + 1, **latest)
        return last.id
    return ScalingDecision.objects.create(pool=pool, at=now, cost_change_microusd=decision.cost_change_microusd, **held, **latest).id
