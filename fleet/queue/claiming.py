"""Hand queued jobs to a worker, with a lease and an attempt number. Three statements, whatever the batch.

The last of them names the states a worker may take work in: one that was retired or asked to leave since it was read
matches nothing, and the leases are rolled back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from controlplane.kernel import sql
from controlplane.kernel.errors import Conflict
from fleet import measures, placement, worker_states
from fleet.models import Job, Worker


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job as leased to a worker."""

    job_id: UUID
    attempt: int
    version_id: UUID
    inputs: dict[str, Any]
    warm_key: str
    deadline_at: datetime | None
    request_id: str


# Materialized: a plan that scanned the head twice could lease more than asked for, as what is locked changes in between.
_LEASE = """
WITH chosen AS MATERIALIZED ({chosen})
UPDATE fleet_job SET status = 'running', attempt = attempt + 1, worker_id = %s, lease_until = %s, started_at = %s,
  progress = 0, revision = revision + 1
WHERE id IN (SELECT id FROM chosen) AND status = 'queued'
RETURNING id, attempt, version_id, inputs, warm_key, deadline_at, request_id, priority, fair_tag
"""

_HEAD = "SELECT id FROM fleet_job WHERE pool_id = %s AND status = 'queued'{open} ORDER BY priority, fair_tag, id LIMIT %s {lock}"

_ATTEMPTS = """
INSERT INTO fleet_attempt (job_id, number, worker_id, state, claimed_at, failure_class, timings, nodes, busy_s, cost_microusd)
VALUES {rows}
"""

_BUSY = """
UPDATE fleet_worker SET state = 'busy', state_since = %s, seen_at = %s, idle_since = NULL, ready_at = coalesce(ready_at, %s)
WHERE id = %s AND state IN ({states}) AND cordoned_at IS NULL AND preempt_at IS NULL
""".format(states=", ".join(f"'{state}'" for state in worker_states.TAKES_JOBS))


class _Leaving(Exception):
    """The worker may take no work any more."""


def claim(worker: Worker, *, limit: int = 1, warm: Collection[str] = (), stored: Collection[str] = (), now: datetime) -> list[Assignment]:
    """Lease up to `limit` jobs of the worker's pool, most urgent first. Empty when there are none or the worker may take none.

    `warm` and `stored` are keys of models that the worker has loaded, and has on its disk.
    """
    if worker.state in (Worker.State.STOPPED, Worker.State.LOST):
        raise Conflict("worker_retired", "This worker was retired.", "Register again as a new worker.")
    if not takes_jobs(worker):
        return []
    try:
        return _claim(worker, limit=limit, warm=warm, stored=stored, now=now)
    except _Leaving:
        return []


@transaction.atomic
def _claim(worker: Worker, *, limit: int, warm: Collection[str], stored: Collection[str], now: datetime) -> list[Assignment]:
    lease_until = now + timedelta(seconds=settings.WORKER["LEASE_S"])
    paused = measures.paused_from(worker.pool_id, now=now)
    chosen, parameters = _choice(worker.pool_id, limit=limit, warm=warm, stored=stored, paused=paused, now=now)
    leased = sql.rows(_LEASE.format(chosen=chosen), [*parameters, worker.id, lease_until, now])
    if not leased and (warm or stored):  # others took what was chosen: take what is next instead of waiting beside a queue
        head, parameters = _head(worker.pool_id, limit=limit, paused=paused)
        leased = sql.rows(_LEASE.format(chosen=head), [*parameters, worker.id, lease_until, now])
    if not leased:
        return []
    leased.sort(key=lambda row: (row[7], row[8], str(row[0])))
    blank: list[Any] = []
    for row in leased:
        blank += [row[0], row[1], worker.id, "running", now, "", {}, [], 0.0, 0]
    sql.send(_ATTEMPTS.format(rows=", ".join([f"({sql.marks(10)})"] * len(leased))), blank)
    if not sql.run(_BUSY, [now, now, now, worker.id]):
        raise _Leaving
    return [
        Assignment(sql.to_uuid(id_), attempt, sql.to_uuid(version), sql.to_json(inputs), warm_key, sql.to_datetime(deadline), request_id)
        for id_, attempt, version, inputs, warm_key, deadline, request_id, _, _ in leased
    ]


def takes_jobs(worker: Worker) -> bool:
    """Whether this worker, as it was read, may be handed a job: not while it drains, is cordoned, taken out or about to be taken away."""
    return worker.state in worker_states.TAKES_JOBS and worker.drain_asked_at is None and worker.cordoned_at is None and worker.preempt_at is None


def ready(worker: Worker, *, now: datetime) -> bool:
    """Whether a claim could give this worker anything: a cheap look without a transaction."""
    return takes_jobs(worker) and _line(worker.pool_id, measures.paused_from(worker.pool_id, now=now)).exists()


def _choice(pool_id: int, *, limit: int, warm: Collection[str], stored: Collection[str], paused: int | None, now: datetime) -> tuple[str, list[Any]]:
    """The jobs to lease, as a query and its parameters."""
    if not warm and not stored:
        return _head(pool_id, limit=limit, paused=paused)
    line = _line(pool_id, paused).order_by("priority", "fair_tag", "id")
    seen = [placement.Candidate(*row) for row in line.values_list("id", "priority", "warm_key", "queued_at")[: max(limit, placement.LOOK_AHEAD)]]
    wanted = placement.choose(seen, warm=warm, stored=stored, limit=limit, now=now)
    if not wanted or wanted == [candidate.id for candidate in seen[:limit]]:
        return _head(pool_id, limit=limit, paused=paused)
    return f"SELECT id FROM fleet_job WHERE id IN ({sql.marks(len(wanted))}) AND status = 'queued' {sql.locking('FOR UPDATE SKIP LOCKED')}", list(wanted)


def _line(pool_id: int, paused: int | None) -> QuerySet[Job]:
    """Who may be served: all that wait, save the classes that are paused."""
    waiting = Job.objects.filter(pool_id=pool_id, status="queued")
    return waiting if paused is None else waiting.filter(priority__lt=paused)


def _head(pool_id: int, *, limit: int, paused: int | None) -> tuple[str, list[Any]]:
    lock = sql.locking("FOR UPDATE SKIP LOCKED")
    if paused is None:
        return _HEAD.format(open="", lock=lock), [pool_id, limit]
    return _HEAD.format(open=" AND priority < %s", lock=lock), [pool_id, paused, limit]
