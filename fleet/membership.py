"""Workers come, drain and go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid
from controlplane.kernel.ids import uuid7
from fleet import queue, tokens
from fleet.models import Pool, Worker

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
def drain(worker: Worker, *, actor: str, reason: str = "", now: datetime) -> None:
    """Ask a worker to finish its job and leave. Asking twice changes nothing."""
    changed = Worker.objects.filter(id=worker.id, drain_asked_at__isnull=True, state__in=Worker.LIVE).update(
        drain_asked_at=now, state=Worker.State.DRAINING, state_since=now
    )
    if changed:
        audit.record(actor=actor, action="worker.drain", object_type="worker", object_id=str(worker.id), after={"name": worker.name}, reason=reason, now=now)


@transaction.atomic
def stopped(worker: Worker, *, reason: str, message: str = "", engine_log: Sequence[str] = (), lost: bool = False, now: datetime) -> int:
    """Write down that a worker is gone and take back its jobs at once; returns how many there were."""
    changed = (
        Worker.objects.filter(id=worker.id)
        .exclude(state__in=[Worker.State.STOPPED, Worker.State.LOST])
        .update(
            state=Worker.State.LOST if lost else Worker.State.STOPPED,
            state_since=now,
            stopped_at=now,
            stop_reason=reason[:20],
            stop_message=message[:500],
            engine_log=list(engine_log),
            idle_since=None,
        )
    )
    return queue.requeue_worker(worker, now=now) if changed else 0
