"""Why a job still waits, for its customer: in words that help, without a worker, an image or a price of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.kernel import sql
from fleet import job_times, measures
from fleet.models import Job, Pool

CANNOT_START = "workers_cannot_start"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stable code, a sentence, since when it is so, and in how many seconds it should change, where that can be told."""

    code: str
    reason: str
    since: datetime
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A pool as far as its waiting jobs are concerned."""

    halted_at: datetime | None
    maximum: int
    orders: bool
    paused: bool
    ready: int
    idle: int
    coming: int
    first_ordered: datetime | None


_STANDING = """
SELECT p.halted_at, p.max, p.provider, p.paused_until,
  (SELECT count(*) FROM fleet_worker w WHERE w.pool_id = p.id AND w.state IN ('idle', 'busy') AND w.cordoned_at IS NULL AND w.preempt_at IS NULL),
  (SELECT count(*) FROM fleet_worker w WHERE w.pool_id = p.id AND w.state = 'idle' AND w.cordoned_at IS NULL AND w.preempt_at IS NULL),
  (SELECT count(*) FROM fleet_worker w WHERE w.pool_id = p.id AND w.state IN ('ordered', 'starting', 'loading')),
  (SELECT min(w.ordered_at) FROM fleet_worker w WHERE w.pool_id = p.id AND w.state IN ('ordered', 'starting', 'loading'))
FROM fleet_pool p WHERE p.id = %s
"""


def of(job: Job, *, now: datetime, known: dict[int, Standing] | None = None) -> Waiting | None:
    """Why `job` waits; None when it does not. One query; `known` keeps its answer for the other jobs of a list."""
    if job.status != Job.Status.QUEUED:
        return None
    pause = measures.pause(job.pool_id, now=now)
    if pause is not None and job.priority >= pause.priority:
        eta_s = max(0.0, round((pause.expires_at - now).total_seconds(), 1))
        return Waiting("class_paused", "Jobs of this priority are paused for the moment; it keeps its place.", pause.starts_at, eta_s)
    standing = (known or {}).get(job.pool_id) or _read(job.pool_id, now=now)
    if known is not None:
        known[job.pool_id] = standing
    return _why(job, standing, now=now)


def _why(job: Job, standing: Standing, *, now: datetime) -> Waiting:
    if standing.ready == 0:
        if standing.halted_at is not None:
            return Waiting(CANNOT_START, "Workers cannot start at the moment. We have been told; the job keeps its place.", standing.halted_at)
        if standing.coming or (standing.orders and not standing.paused and standing.maximum):
            cold = job_times.of_pool(Pool(id=job.pool_id), now=now).cold
            began = standing.first_ordered or now
            left = max(0.0, cold.p90_s - max(0.0, (now - began).total_seconds()))
            return Waiting("workers_starting", "A worker is starting.", max(began, job.queued_at), round(left, 1))
        return Waiting("no_workers", "No worker is there at the moment; the job keeps its place.", job.queued_at)
    if standing.idle == 0 and standing.ready + standing.coming >= standing.maximum:
        return Waiting("at_capacity", "Every worker is busy, and there are as many as there may be.", job.queued_at)
    return Waiting("in_line", "Other jobs are before it.", job.queued_at)


def _read(pool_id: int, *, now: datetime) -> Standing:
    ((halted, maximum, provider, paused, ready, idle, coming, first),) = sql.rows(_STANDING, [pool_id])
    until = sql.to_datetime(paused)
    return Standing(
        halted_at=sql.to_datetime(halted),
        maximum=maximum,
        orders=provider != Pool.Provider.EXTERNAL,
        paused=until is not None and until - now > timedelta(0),
        ready=ready,
        idle=idle,
        coming=coming,
        first_ordered=sql.to_datetime(first),
    )
