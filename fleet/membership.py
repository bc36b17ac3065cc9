"""Workers come, are set aside, drain and go. Every change of a person's is audited, may be asked for twice, and is undone where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F

from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid
from controlplane.kernel.ids import uuid7
from fleet import queue, tokens, worker_states
from fleet.models import Pool, PoolOffer, Worker, WorkerChange
from fleet.queue.expiring import TAKEN_OUT

PROTOCOL = 1


@transaction.atomic
def register(pool: Pool, *, protocol: int, instance: str, name: str, fingerprint: dict[str, Any], now: datetime) -> tuple[Worker, str]:
    """Take a worker in and give it a token. An instance the scaler ordered keeps its row; the same instance again gets a fresh token."""
    if protocol != PROTOCOL:
        raise Invalid(
            "protocol_unknown", f"This control plane speaks worker protocol {PROTOCOL}.", "Use the agent that came with it.", details={"given": protocol}
        )
    fresh = {"id": uuid7(), "pool": pool, "name": name or instance[:60], "ordered_at": now, "state_since": now}
    fresh |= {"price_per_hour_microusd": pool.price_per_hour_microusd, "gpu": pool.gpu}
    worker, _ = Worker.objects.select_for_update().get_or_create(instance=instance, defaults=fresh)
    if worker.pool_id != pool.id:
        raise Invalid("instance_taken", "An instance of that name belongs to another pool.", "Give each agent an instance name of its own.")
    if worker.state in (Worker.State.STOPPED, Worker.State.LOST):
        raise Invalid("instance_retired", "An instance of that name was retired before.", "Start the agent with a new instance name.")
    token, worker.token_digest = tokens.new_worker_token(worker.id)
    if worker.state in (Worker.State.ORDERED, Worker.State.STARTING):
        worker.state, worker.state_since = Worker.State.STARTING, now
    worker.registered_at = worker.seen_at = now
    worker.fingerprint = fingerprint
    worker.save()
    return worker, token


@transaction.atomic
def cordon(worker: Worker, *, actor: str, reason: str = "", now: datetime) -> None:
    """Give a worker no more jobs; the one it runs goes on, and it stays until it is uncordoned or drained."""
    _check_live(worker)
    if Worker.objects.filter(id=worker.id, cordoned_at__isnull=True, state__in=Worker.LIVE).update(cordoned_at=now):
        _note(worker, "cordoned", actor=actor, reason=reason, now=now)


@transaction.atomic
def uncordon(worker: Worker, *, actor: str, reason: str = "", now: datetime) -> None:
    """Put a worker back to work: cordoned, taken out as faulty, or told by its provider to go. Raises Conflict when it drains or is gone."""
    held = _check_live(Worker.objects.select_for_update().get(id=worker.id))
    if held.drain_asked_at is not None:
        raise Conflict("worker_draining", f"{held.name} is already leaving.", "Order another; one that was asked to leave cannot be kept.")
    if held.cordoned_at is None and held.faulted_at is None and held.preempt_at is None:
        return
    kind = "cleared" if held.faulted_at is not None else "uncordoned"
    before = {name: getattr(held, name) for name in ("cordoned_at", "faulted_at", "preempt_at") if getattr(held, name) is not None}
    held.cordoned_at = held.faulted_at = held.preempt_at = None
    if held.state == Worker.State.FAULTED:
        worker_states.check(held.state, Worker.State.IDLE)
        held.state, held.state_since, held.idle_since, held.stop_message = Worker.State.IDLE, now, now, ""
    held.save(update_fields=["cordoned_at", "faulted_at", "preempt_at", "state", "state_since", "idle_since", "stop_message"])
    _note(held, kind, actor=actor, reason=reason, before=before, now=now)


@transaction.atomic
def drain(worker: Worker, *, actor: str, reason: str = "", now: datetime) -> None:
    """Ask a worker to finish its job and leave. Asking twice changes nothing."""
    may = worker_states.before(Worker.State.DRAINING)
    if Worker.objects.filter(id=worker.id, drain_asked_at__isnull=True, state__in=may).update(
        drain_asked_at=now, state=Worker.State.DRAINING, state_since=now, idle_since=None
    ):
        audit.record(actor=actor, action="worker.drain", object_type="worker", object_id=str(worker.id), after={"name": worker.name}, reason=reason, now=now)


@transaction.atomic
def fault(worker: Worker, *, actor: str, reason: str, now: datetime) -> int:
    """Take a worker out: no more jobs, what it runs is tried elsewhere, and it is kept to be looked at. Returns how many jobs were taken back."""
    _check_live(worker)
    may = worker_states.before(Worker.State.FAULTED)
    if not Worker.objects.filter(id=worker.id, faulted_at__isnull=True, state__in=may).update(
        state=Worker.State.FAULTED, state_since=now, faulted_at=now, idle_since=None, stop_message=reason[:500]
    ):
        return 0
    taken = queue.requeue_worker(worker, error=TAKEN_OUT, now=now)
    _note(worker, "faulted", actor=actor, reason=reason, now=now)
    return taken


@transaction.atomic
def stopped(worker: Worker, *, reason: str, message: str = "", engine_log: Sequence[str] = (), lost: bool = False, now: datetime) -> int:
    """Write down that a worker is gone and take back its jobs at once; returns how many there were."""
    ended = Worker.State.LOST if lost else Worker.State.STOPPED
    values: dict[str, Any] = {"state": ended, "state_since": now, "stopped_at": now, "stop_reason": reason[:20], "idle_since": None}
    values |= {"stop_message": message[:500]} if message or worker.faulted_at is None else {}
    changed = Worker.objects.filter(id=worker.id, state__in=worker_states.before(ended)).update(engine_log=list(engine_log), **values)
    if not changed:
        return 0
    add_hours(worker, now=now)
    return queue.requeue_worker(worker, now=now)


def add_hours(worker: Worker, *, now: datetime) -> None:
    """Add the hours of a worker that has ended to its kind of machine: with the interruptions they tell the risk of the next one."""
    if worker.offer_id is not None:
        hours = max(0.0, (now - worker.ordered_at).total_seconds()) / 3600
        PoolOffer.objects.filter(id=worker.offer_id).update(worker_hours=F("worker_hours") + hours)


def _note(worker: Worker, kind: str, *, actor: str, reason: str, before: dict[str, Any] | None = None, now: datetime) -> None:
    """One moment of its timeline and one entry of the audit trail."""
    WorkerChange.objects.create(worker=worker, at=now, kind=kind, note=reason[:500], actor=actor[:120])
    action = {"cordoned": "worker.cordon", "uncordoned": "worker.uncordon", "cleared": "worker.uncordon", "faulted": "worker.fault"}[kind]
    audit.record(actor=actor, action=action, object_type="worker", object_id=str(worker.id), before=before, after={"name": worker.name}, reason=reason, now=now)


def _check_live(worker: Worker) -> Worker:
    if worker.state in Worker.GONE:
        raise Conflict("worker_gone", f"{worker.name} is gone.", "Look at its pool for the workers there are.")
    return worker
