"""Reads of pools, their workers and scaling decisions for pages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, F, Min, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce

from builds.models import Workflow
from fleet.models import EmergencyAction, Forecast, Job, PolicyRevision, Pool, PoolOffer, SavingsDay, ScalingDecision, Worker

WAIT_TARGET_S = 60.0
"""The target of waits that are not one pool's: a pool has its own."""
REVERSED = timedelta(minutes=10)
_HEAVY = ("fingerprint", "warm", "provider_ref", "token_digest")


@dataclass(slots=True)
class PoolNow:
    """A pool as it stands: workers by state and what waits for them."""

    pool: Pool
    workers: dict[str, int] = field(default_factory=dict)
    queue: int = 0
    oldest_s: float | None = None
    cost_per_hour_microusd: int = 0
    paused: bool = False
    measure: tuple[str, datetime] | None = None
    """The emergency measure that ends first, and when; None without any."""
    forecast_id: int | None = None
    """Its newest forecast."""

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
        """Not ready yet: ordered, starting, or loading its models."""
        return self._n("ordered", "starting", "loading")

    @property
    def draining(self) -> int:
        return self._n("draining")

    @property
    def faulted(self) -> int:
        return self._n("faulted")

    @property
    def ready(self) -> int:
        return self.busy + self.idle

    @property
    def live(self) -> int:
        return self.ready + self.starting + self.draining + self.faulted

    @property
    def waits_long(self) -> bool:
        return self.oldest_s is not None and self.oldest_s > self.pool.target_s

    @property
    def state(self) -> str:
        """halted, empty, short, pool_paused, pool_starting, zero or healthy: the worst that is true."""
        if self.pool.halted_at is not None:
            return "halted"
        if self.live == 0 and self.queue:
            return "empty"
        if self.live and self.waits_long:
            return "short"
        if self.paused:
            return "pool_paused"
        if self.live == 0:
            return "empty" if self.pool.base else "zero"
        return "pool_starting" if self.ready == 0 else "healthy"


def _with_queue(now: datetime) -> QuerySet[Pool]:
    waiting = Job.objects.filter(pool=OuterRef("pk"), status=Job.Status.QUEUED).exclude(source=Job.SMOKE).order_by().values("pool")
    measure = (
        EmergencyAction.objects.filter(pool=OuterRef("pk"), starts_at__lte=now, expires_at__gt=now, ended_at__isnull=True)
        .exclude(kind="clear")
        .order_by("expires_at")
    )
    predicted = Forecast.objects.filter(pool=OuterRef("pk"), workflow__isnull=True, made_at__lte=now).order_by("-made_at")
    return Pool.objects.annotate(
        waiting=Subquery(waiting.annotate(n=Count("id")).values("n")),
        oldest=Subquery(waiting.annotate(at=Min("queued_at")).values("at")),
        forecast_id=Subquery(predicted.values("id")[:1]),
        measure_kind=Subquery(measure.values("kind")[:1]),
        measure_until=Subquery(measure.values("expires_at")[:1]),
    )


def _now(pool: Any, now: datetime) -> PoolNow:
    oldest_s = max(0.0, (now - pool.oldest).total_seconds()) if pool.oldest else None
    paused = pool.paused_until is not None and pool.paused_until > now
    measure = (pool.measure_kind, pool.measure_until) if pool.measure_kind else None
    return PoolNow(pool, queue=pool.waiting or 0, oldest_s=oldest_s, paused=paused, measure=measure, forecast_id=pool.forecast_id)


def pools_now(*, now: datetime) -> list[PoolNow]:
    """Every pool with its workers by state, their cost and its queue: two queries."""
    found = {pool.id: _now(pool, now) for pool in _with_queue(now)}
    workers = Worker.objects.filter(state__in=Worker.LIVE, pool_id__in=found).order_by()
    # A worker nobody agreed a price for costs what its pool says.
    price = Case(When(price_per_hour_microusd=0, then=F("pool__price_per_hour_microusd")), default=F("price_per_hour_microusd"))
    for pool_id, state, n, cost in workers.values_list("pool_id", "state").annotate(n=Count("id"), cost=Sum(price)):
        found[pool_id].workers[state] = n
        found[pool_id].cost_per_hour_microusd += cost or 0
    return list(found.values())


def one(slug: str, *, now: datetime) -> PoolNow | None:
    """One pool without its workers, in one query, with what its page says beside it.

    On `pool`: `revision_number` and `revision_at`; `saved_day`, `saved_seed` and `saved_replayed` of the last day compared; `serves` and
    `serves_first`; `kinds` of machine it lists; `halted_pools` of the whole fleet.
    """
    latest = PolicyRevision.objects.filter(pool=OuterRef("pk")).order_by("-number")
    compared = SavingsDay.objects.filter(pool=OuterRef("pk")).order_by("-day")
    halted = Pool.objects.filter(halted_at__isnull=False).order_by().annotate(all=Value(1)).values("all").annotate(n=Count("id")).values("n")
    served = Workflow.objects.filter(pool_slug=OuterRef("slug"), archived_at__isnull=True)
    offered = PoolOffer.objects.filter(pool=OuterRef("pk")).order_by().values("pool").annotate(n=Count("id")).values("n")
    pool = (
        _with_queue(now)
        .filter(slug=slug)
        .annotate(
            revision_number=Subquery(latest.values("number")[:1]),
            revision_at=Subquery(latest.values("created_at")[:1]),
            saved_day=Subquery(compared.values("day")[:1]),
            saved_seed=Subquery(compared.values("seed_microusd")[:1]),
            saved_replayed=Subquery(compared.values("replayed_microusd")[:1]),
            serves_first=Subquery(served.order_by("slug").values("slug")[:1]),
            serves=Coalesce(Subquery(served.order_by().annotate(all=Value(1)).values("all").annotate(n=Count("id")).values("n")[:1]), 0),
            halted_pools=Coalesce(Subquery(halted[:1]), 0),
            kinds=Coalesce(Subquery(offered[:1]), 0),
        )
        .first()
    )
    return None if pool is None else _now(pool, now)


def fill(here: PoolNow, live: Sequence[Worker]) -> None:
    """Count these live workers of the pool into it."""
    for worker in live:
        here.workers[worker.state] = here.workers.get(worker.state, 0) + 1
        here.cost_per_hour_microusd += price(worker, here.pool)


def price(worker: Worker, pool: Pool) -> int:
    """Micro-dollars an hour; a worker nobody agreed a price for costs what its pool says."""
    return worker.price_per_hour_microusd or pool.price_per_hour_microusd


def workers(pool: Pool, *, now: datetime, most: int = 600) -> list[Worker]:
    """The live workers of a pool, what they run beside them not read, then those of the last seven days that are gone, newest end first."""
    order = {"busy": 0, "idle": 1, "draining": 2, "loading": 3, "starting": 4, "ordered": 5, "faulted": 6}
    rows = Worker.objects.filter(Q(stopped_at__isnull=True) | Q(stopped_at__gte=now - timedelta(days=7)), pool=pool).defer(*_HEAVY)
    found = list(rows.order_by(F("stopped_at").desc(nulls_first=True), "-ordered_at")[:most])
    return sorted(found, key=lambda w: order.get(w.state, 9))


def running_by_worker(workers: Sequence[Worker]) -> dict[UUID, dict[str, Any]]:
    """What each worker runs now."""
    rows = Job.objects.filter(status=Job.Status.RUNNING, worker_id__in=[w.id for w in workers]).values(
        "worker_id", "id", "workflow__slug", "version__number", "progress", "started_at"
    )
    return {row["worker_id"]: dict(row) for row in rows}


def gone(workers: Sequence[Worker], *, most: int = 8) -> list[Worker]:
    """Of these, the ones that stopped or were lost last."""
    return sorted((w for w in workers if w.stopped_at is not None), key=lambda w: w.stopped_at or w.ordered_at, reverse=True)[:most]


def cold_start_p95(workers: Sequence[Worker], *, since: datetime) -> tuple[float | None, int]:
    """Seconds from order to ready at the 95th percentile, and how many starts that rests on."""
    took = sorted((w.ready_at - w.ordered_at).total_seconds() for w in workers if w.ready_at is not None and w.ready_at >= since)
    return (took[min(len(took) - 1, int(len(took) * 0.95))] if took else None), len(took)


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
    """How often a pool changed size in a range, was held back, or took a change back within ten minutes."""

    made: int
    up: int
    down: int
    held: int
    reversed: int


def changes(found: Sequence[ScalingDecision]) -> Changes:
    """Counts of these decisions, newest first."""
    moves = [d for d in found if d.applied]
    up, down = (sum(abs(d.applied) for d in moves if d.action == action) for action in ("up", "down"))
    back = sum(1 for later, d in itertools.pairwise(moves) if later.applied * d.applied < 0 and later.at - d.at <= REVERSED)
    return Changes(len(moves), up, down, sum(1 for d in found if d.action == "halted" or d.bound), back)
