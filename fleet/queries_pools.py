"""Reads of pools, their workers and scaling decisions for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery

from builds.models import Workflow
from fleet import costs
from fleet.models import Attempt, Job, Pool, ScalingDecision, Worker

WAIT_TARGET_S = 60.0
_HEAVY = ("fingerprint", "warm", "provider_ref", "token_digest")


@dataclass(slots=True)
class PoolNow:
    """A pool as it stands: workers by state and what waits for them."""

    pool: Pool
    workers: dict[str, int] = field(default_factory=dict)
    queue: int = 0
    oldest_s: float | None = None

    def _n(self, *states: str) -> int:
        return sum(self.workers.get(s, 0) for s in states)

    @property
    def busy(self) -> int:
        return self._n("busy")

    @property
    def idle(self) -> int:
        return self._n("idle")

    @property
    def starting(self) -> int:
        return self._n("ordered", "starting")

    @property
    def draining(self) -> int:
        return self._n("draining")

    @property
    def ready(self) -> int:
        return self.busy + self.idle

    @property
    def live(self) -> int:
        return self.ready + self.starting + self.draining

    @property
    def cost_per_hour_microusd(self) -> int:
        return self.live * self.pool.price_per_hour_microusd

    @property
    def waits_long(self) -> bool:
        return self.oldest_s is not None and self.oldest_s > WAIT_TARGET_S

    @property
    def state(self) -> str:
        """halted, empty, short, pool_starting, zero or healthy: the worst that is true."""
        if self.pool.halted_at is not None:
            return "halted"
        if self.live == 0:
            if self.queue or self.pool.base:
                return "empty"
            return "zero"
        if self.waits_long:
            return "short"
        if self.ready == 0:
            return "pool_starting"
        return "healthy"


def pools_now(*, now: datetime) -> list[PoolNow]:
    """Every pool with its workers by state and its queue: two queries."""
    waiting = Job.objects.filter(pool=OuterRef("pk"), status=Job.Status.QUEUED).exclude(source=Job.SMOKE).order_by().values("pool")
    pools = Pool.objects.annotate(
        waiting=Subquery(waiting.annotate(n=Count("id")).values("n")), oldest=Subquery(waiting.annotate(at=Min("queued_at")).values("at"))
    )
    found = {p.id: PoolNow(p, queue=p.waiting or 0, oldest_s=max(0.0, (now - p.oldest).total_seconds()) if p.oldest else None) for p in pools}
    workers = Worker.objects.filter(state__in=Worker.LIVE, pool_id__in=found).order_by()
    for pool_id, state, n in workers.values_list("pool_id", "state").annotate(n=Count("id")):
        found[pool_id].workers[state] = n
    return list(found.values())


def live_workers(pool: Pool, *, states: Sequence[str] = Worker.LIVE, most: int = 200) -> list[Worker]:
    """Workers of a pool, busiest states first, then newest."""
    order = {"busy": 0, "idle": 1, "draining": 2, "starting": 3, "ordered": 4}
    rows = Worker.objects.filter(pool=pool, state__in=states).defer(*_HEAVY).order_by("-ordered_at")[:most]
    return sorted(rows, key=lambda w: order.get(w.state, 5))


def running_by_worker(workers: Sequence[Worker]) -> dict[UUID, dict[str, Any]]:
    """What each worker runs now."""
    rows = Job.objects.filter(status=Job.Status.RUNNING, worker_id__in=[w.id for w in workers]).values(
        "worker_id", "id", "workflow__slug", "version__number", "progress"
    )
    return {row["worker_id"]: dict(row) for row in rows}


def spans(pool: Pool, *, start: datetime, end: datetime, most: int = 2000) -> list[Worker]:
    """Workers of a pool that existed in the range, newest first, without what they run."""
    return list(
        Worker.objects.filter(Q(stopped_at__isnull=True) | Q(stopped_at__gte=start), pool=pool, ordered_at__lt=end)
        .defer(*_HEAVY, "usage")
        .order_by("-ordered_at")[:most]
    )


def gone(workers: Sequence[Worker], *, most: int = 8) -> list[Worker]:
    """Of these, the ones that stopped or were lost last."""
    return sorted((w for w in workers if w.stopped_at is not None), key=lambda w: w.stopped_at or w.ordered_at, reverse=True)[:most]


def cold_start_p95(workers: Sequence[Worker], *, since: datetime) -> tuple[float | None, int]:
    """Seconds from order to ready at the 95th percentile, and how many starts that rests on."""
    took = sorted((w.ready_at - w.ordered_at).total_seconds() for w in workers if w.ready_at is not None and w.ready_at >= since)
    return (took[min(len(took) - 1, int(len(took) * 0.95))] if took else None), len(took)


def ready_line(workers: Sequence[Worker], times: Sequence[int]) -> list[int]:
    """How many workers were ready at each time."""
    found = []
    for t in times:
        found.append(
            sum(1 for w in workers if w.ready_at is not None and w.ready_at.timestamp() <= t + 1 and (w.stopped_at is None or w.stopped_at.timestamp() > t))
        )
    return found


@dataclass(frozen=True, slots=True)
class Hour:
    """Where the workers' time of a stretch went, in seconds; the parts add up to `total`."""

    running: float
    loading: float
    idle: float
    starting: float
    draining: float
    price_per_hour_microusd: int

    @property
    def total(self) -> float:
        return self.running + self.loading + self.idle + self.starting + self.draining

    @property
    def waste_microusd(self) -> int:
        return costs.of_seconds(self.price_per_hour_microusd, self.idle + self.starting)

    @property
    def total_microusd(self) -> int:
        return costs.of_seconds(self.price_per_hour_microusd, self.total)


def hour(pool: Pool, workers: Sequence[Worker], *, start: datetime, now: datetime) -> Hour:
    """Seconds by use since `start`: from the workers' own times and the attempts that touched the stretch."""

    def within(a: datetime | None, b: datetime | None) -> float:
        if a is None:
            return 0.0
        return max(0.0, (min(b or now, now) - max(a, start)).total_seconds())

    starting = sum(within(w.ordered_at, w.ready_at or w.stopped_at) for w in workers)
    draining = sum(within(w.drain_asked_at, w.stopped_at) for w in workers if w.drain_asked_at and w.ready_at)
    ready = sum(within(w.ready_at, w.drain_asked_at or w.stopped_at) for w in workers)
    attempts = Attempt.objects.filter(
        Q(ended_at__isnull=True) | Q(ended_at__gte=start), worker__pool=pool, claimed_at__gte=start - timedelta(hours=6)
    ).order_by("-id")
    running = loading = 0.0
    for claimed, ended, timings in attempts.values_list("claimed_at", "ended_at", "timings")[:5000]:
        took = within(claimed, ended)
        load = min(took, sum(float((timings or {}).get(name) or 0.0) for name in ("models_s", "load_s")))
        running, loading = running + took - load, loading + load
    used = running + loading
    if used > ready + draining and used > 0:  # clocks and hand-overs overlap a little; the whole stays the workers' time
        running, loading = running * (ready + draining) / used, loading * (ready + draining) / used
        used = ready + draining
    over = max(0.0, used - ready)
    return Hour(running, loading, max(0.0, ready - used), starting, max(0.0, draining - over), pool.price_per_hour_microusd)


def decisions(*, pool: Pool | None = None, kind: str = "", start: datetime | None = None, end: datetime | None = None) -> QuerySet[ScalingDecision]:
    """Decisions newest first; `kind` is up, down, held or empty for all."""
    found = ScalingDecision.objects.select_related("pool").order_by("-at", "-id")
    if pool is not None:
        found = found.filter(pool=pool)
    if start is not None:
        found = found.filter(last_seen_at__gte=start)
    if end is not None:
        found = found.filter(at__lt=end)
    if kind in ("up", "down"):
        found = found.filter(action=kind)
    if kind == "held":
        found = found.filter(Q(action="halted") | ~Q(bound=""))
    return found


def before(found: QuerySet[ScalingDecision], at: datetime, id_: int) -> QuerySet[ScalingDecision]:
    """The decisions after this one in the list."""
    return found.filter(Q(at__lt=at) | Q(at=at, id__lt=id_))


@dataclass(frozen=True, slots=True)
class Changes:
    """How often a pool changed size in a range, and the money saved against always running at the maximum."""

    up: int
    down: int
    held: int
    saved_microusd: int


def changes(pool: Pool, found: Sequence[ScalingDecision], ready: Sequence[int], *, step_s: int) -> Changes:
    """Counts of these decisions, with the saving of the line of ready workers."""
    spared_s = sum(max(0, pool.max - n) for n in ready) * step_s
    up, down = (sum(abs(d.applied) for d in found if d.action == action) for action in ("up", "down"))
    held = sum(1 for d in found if d.action == "halted" or d.bound)
    return Changes(up, down, held, costs.of_seconds(pool.price_per_hour_microusd, spared_s))


def served_by(pool: Pool) -> list[str]:
    """Slugs of the workflows that run on the pool."""
    return list(Workflow.objects.filter(pool_slug=pool.slug, archived_at__isnull=True).order_by("slug").values_list("slug", flat=True)[:50])
