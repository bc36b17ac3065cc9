"""How long jobs occupy a worker, by version, and how long workers take to start: what sizing rests on. Cached a few seconds a process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from controlplane.kernel import sql
from fleet.models import Pool, Worker
from fleet.sizing.seen import ColdStart, JobTime

RUNS = 1000
"""The last runs of a pool are what counts: so many jobs that ended on a worker, each by its last attempt."""
STARTS = 50
_TTL_S = 15.0
_UNMEASURED = JobTime()
_cache: dict[int, tuple[float, Times]] = {}

# One range of one index, read from its end: the same however many jobs have ended. A job that goes back to the queue loses its worker,
# so one that ended there is none of these.
_LAST = """
SELECT workflow_id, version_id, warm_key, started_at, finished_at FROM fleet_job
WHERE pool_id = %s AND finished_at IS NOT NULL AND worker_id IS NOT NULL AND status IN ('succeeded', 'failed', 'canceled')
ORDER BY finished_at DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Times:
    """What jobs of a pool took lately, and how often each kind came."""

    by_version: Mapping[UUID, JobTime] = field(default_factory=dict)
    shares: Mapping[UUID, float] = field(default_factory=dict)
    warm: Mapping[str, float] = field(default_factory=dict)
    """Share of the jobs by warm key."""
    all: JobTime = _UNMEASURED
    cold: ColdStart = field(default_factory=ColdStart)

    def mix(self, counts: Mapping[UUID, float]) -> JobTime:
        """The job time of a mixture of versions; a version never measured counts as the pool's average."""
        total = sum(counts.values())
        if total <= 0:
            return self.all
        mean = square = samples = 0.0
        for version, count in counts.items():
            of = self.by_version.get(version, self.all)
            mean += count * of.mean_s
            square += count * of.mean_s**2 * (1 + of.cv2)
            samples += of.samples
        mean, square = mean / total, square / total
        return JobTime(mean, max(0.0, square / mean**2 - 1) if mean > 0 else 0.0, int(samples))

    def work_s(self, counts: Mapping[UUID, float]) -> float:
        """Seconds of one worker that so many jobs of each version need."""
        return sum(count * self.by_version.get(version, self.all).mean_s for version, count in counts.items())


def of_pool(pool: Pool, *, now: datetime) -> Times:
    """Job times of the pool's last runs, and its last cold starts."""
    held = _cache.get(pool.id)
    if held is not None and time.monotonic() - held[0] < _TTL_S:
        return held[1]
    made = _read(pool, now=now)
    _cache[pool.id] = (time.monotonic(), made)
    return made


@dataclass(frozen=True, slots=True)
class Run:
    """A job that ended on a worker, by its last attempt."""

    workflow_id: UUID
    version_id: UUID
    warm_key: str
    seconds: float


def last_runs(pool: Pool, *, most: int) -> list[Run]:
    """The pool's last runs, the newest first."""
    found = []
    for workflow, version, key, started, finished in sql.rows(_LAST, [pool.id, most]):
        began, ended = sql.to_datetime(started), sql.to_datetime(finished)
        took = max(0.0, (ended - began).total_seconds()) if ended and began else 0.0
        found.append(Run(sql.to_uuid(workflow), sql.to_uuid(version), key, took))
    return found


def forget() -> None:
    """Drop what is cached (tests)."""
    _cache.clear()


def _read(pool: Pool, *, now: datetime) -> Times:
    took: dict[UUID, list[float]] = {}
    warm: dict[str, float] = {}
    for run in last_runs(pool, most=RUNS):
        took.setdefault(run.version_id, []).append(run.seconds)
        if run.warm_key:
            warm[run.warm_key] = warm.get(run.warm_key, 0) + 1
    count = sum(len(values) for values in took.values())
    return Times(
        by_version={version: _spread(values) for version, values in took.items()},
        shares={version: len(values) / count for version, values in took.items()},
        warm={key: n / count for key, n in warm.items()},
        all=_spread([value for values in took.values() for value in values]) if count else _UNMEASURED,
        cold=_cold(pool, now=now),
    )


def _spread(values: list[float]) -> JobTime:
    mean = sum(values) / len(values)
    if mean <= 0:
        return JobTime(0.001, 0.0, len(values))
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else mean**2
    return JobTime(mean, variance / mean**2, len(values))


def _cold(pool: Pool, *, now: datetime) -> ColdStart:
    rows = Worker.objects.filter(pool=pool, ready_at__isnull=False, ordered_at__gte=now - timedelta(days=7)).order_by("-ordered_at")
    took = sorted(max(0.0, (ready - ordered).total_seconds()) for ordered, ready in rows.values_list("ordered_at", "ready_at")[:STARTS] if ready)
    if not took:
        return ColdStart()
    return ColdStart(took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.9))], len(took))
