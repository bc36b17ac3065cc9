"""What a sizing policy is shown of a live pool, read in a handful of queries that cost the same however many jobs have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, Q, Sum
from django.db.models.functions import Coalesce

from fleet import demand, floors, job_times
from fleet.buckets import NEVER_RAN
from fleet.costs import of_seconds
from fleet.models import PlannedDemand, Pool, PoolOffer, ScalingDecision, Worker
from fleet.providers.base import Provider, ProviderError
from fleet.sizing.bounding import FAILURE_WINDOW_S, Decision, Limits
from fleet.sizing.seen import Planned, Seen
from fleet.sizing.victims import Idle

VANISHED = "vanished"
FAILED_STARTS = (VANISHED, "start_timeout", "start_failed", "crash", "order_failed", "lost")
PROVIDER_DOWN = "provider_down"
EARLY = timedelta(seconds=60)
AHEAD = timedelta(hours=6)
"""How far ahead announced demand is looked at."""
RISE = 16
"""Most new workers of one step: so many are launched within a lead."""


_READ = (
    *("id", "state", "idle_since", "ordered_at", "cordoned_at", "preempt_at", "replaces_id"),
    *("warm", "market", "price_per_hour_microusd", "image", "offer_id"),
)


@dataclass(frozen=True, slots=True)
class Observed:
    """A pool at one moment: what the policy is shown, the limits beside it, and who is idle."""

    seen: Seen
    limits: Limits
    idle: Sequence[Idle] = ()
    warm_demand: Mapping[str, float] = field(default_factory=dict)
    """Share of the last jobs by warm key."""
    by_offer: Mapping[int, int] = field(default_factory=dict)
    """Live workers by offer."""
    told: int | None = None
    """Of a provider that is told a count: the count it was told."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Workers by state."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """Figures kept with the decision that no policy reads."""


def of(pool: Pool, *, provider: Provider, now: datetime) -> Observed:
    """Look at `pool`."""
    rows = list(Worker.objects.filter(pool=pool, state__in=Worker.LIVE).order_by("id").only(*_READ))
    able = [w for w in rows if w.cordoned_at is None and w.preempt_at is None]
    standing = {w.id for w in able if w.state in Worker.READY}
    # A worker that is being replaced and the one ordered in its place count as one.
    ready = [w for w in able if w.state in Worker.READY and w.replaces_id not in standing]
    coming = [w for w in able if w.state in Worker.COMING and w.replaces_id not in standing]
    idle = [w for w in ready if w.state == Worker.State.IDLE and w.idle_since is not None]
    times = job_times.of_pool(pool, now=now)
    # A smoke job can wait for one of the workers there are; none is bought for it beside them.
    queue, mix, oldest = demand.waiting(pool, with_smoke=not rows, now=now)
    rates = demand.rates(pool, now=now)
    bounds = floors.of(pool, now=now)
    coming_s = [max(0.0, (now - w.ordered_at).total_seconds()) for w in coming]
    unreachable, told = _counted(pool, provider)
    if told is not None:  # asked for, but not seen yet
        coming_s += [0.0] * max(0, told - sum(1 for w in rows if w.state != Worker.State.DRAINING))
    seen = Seen(
        now_s=now.timestamp(),
        queue=queue,
        ready=None if unreachable else len(ready),
        busy=sum(1 for w in ready if w.state == Worker.State.BUSY),
        coming_s=tuple(sorted(coming_s, reverse=True)),
        idle_s=tuple(sorted((max(0.0, (now - w.idle_since).total_seconds()) for w in idle if w.idle_since), reverse=True)),
        queue_work_s=times.work_s({version: float(n) for version, n in mix.items()}),
        oldest_wait_s=max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
        rate_1m=rates.m1,
        rate_5m=rates.m5,
        rate_10m=rates.m10,
        rate_1h=rates.h1,
        job=times.mix({version: float(n) for version, n in mix.items()} if mix else times.shares),
        cold=times.cold,
        planned=_planned(pool, times, now=now),
        base=bounds.base,
        maximum=bounds.maximum,
        target_s=pool.target_s,
        target_share=pool.target_share,
        price_per_hour_microusd=pool.price_per_hour_microusd,
    )
    return Observed(
        seen=seen,
        limits=_limits(pool, seen, provider, unreachable, now=now),
        idle=[_idle(w, pool, now=now) for w in idle],
        warm_demand=times.warm,
        by_offer=_by_offer([*ready, *coming]),
        told=told,
        counts={state: sum(1 for w in rows if w.state == state) for state in {w.state for w in rows}},
        beside={"floor_why": bounds.why} if bounds.why else {},
    )


def minute(found: Observed, decision: Decision, shadows: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """The pool's line of this minute."""
    seen = found.seen
    return {
        "ready": seen.ready or 0,
        "busy": seen.busy,
        "coming": seen.coming,
        "draining": found.counts.get("draining", 0),
        "faulted": found.counts.get("faulted", 0),
        "queue": seen.queue or 0,
        "oldest_wait_s": round(seen.oldest_wait_s, 1),
        "wanted": max(0, decision.proposal.wanted if decision.proposal else seen.live),
        "floor": seen.base,
        "shadows": {name: said["wanted"] for name, said in shadows.items() if "wanted" in said},
    }


def failed_starts(pool: Pool, *, now: datetime) -> list[datetime]:
    """When workers of this pool died without having done anything, since the last one that became ready or was resumed.

    Those that vanished at one moment count once: an engine or a node went, which says nothing of whether workers can start.
    """
    since = now - timedelta(seconds=FAILURE_WINDOW_S)
    counted_anew = ScalingDecision.objects.filter(Q(policy="operator") | Q(action="image"), pool=pool, at__gt=since)
    marks = dict(counted_anew.order_by().values_list("action").annotate(at=Max("at")))
    since = max([since, *marks.values()])
    # A worker handed a job at its very first claim is ready without ever having been idle.
    ready_at = Coalesce("ready_at", Min("attempts__claimed_at"))
    gone = Worker.objects.filter(pool=pool, state__in=Worker.GONE, stopped_at__gt=since, stop_reason__in=FAILED_STARTS, jobs_done=0)
    if "image" in marks:  # those of the image before do not speak against this one
        gone = gone.filter(ordered_at__gte=marks["image"])
    rows = gone.annotate(ready=ready_at).values_list("stopped_at", "ready", "stop_reason")
    died = [(at, why) for at, ready, why in rows if at is not None and (ready is None or at - ready < EARLY)]
    failed = [at for at, why in died if why != VANISHED] + sorted({at for at, why in died if why == VANISHED})
    if not failed:
        return []
    recent = Worker.objects.filter(pool=pool, ordered_at__gt=since - EARLY).annotate(ready=ready_at)
    good = recent.aggregate(at=Max("ready"))["at"]
    return [at for at in failed if good is None or at > good]


def _counted(pool: Pool, provider: Provider) -> tuple[str, int | None]:
    """Why a counted provider cannot be asked, and the count it was told."""
    if not provider.counted:
        return "", None
    try:
        return "", provider.observe(pool).wanted
    except ProviderError as error:
        return str(error)[:200] or "it does not answer", None


def _limits(pool: Pool, seen: Seen, provider: Provider, unreachable: str, *, now: datetime) -> Limits:
    failures = failed_starts(pool, now=now)
    paused = pool.paused_until is not None and pool.paused_until > now
    down = _down(pool, now=now)
    why = pool.paused_reason or "sizing is paused"
    return Limits(
        start_failures=len(failures),
        last_failure_age_s=(now - max(failures)).total_seconds() if failures else None,
        halted=(pool.halted_reason or "a crash loop was seen.") if pool.halted_at is not None else "",
        paused=f"{why}, until {pool.paused_until:%H:%M} UTC." if paused and pool.paused_until else "",
        stands_back=not provider.orders,
        budget_workers=_budget(pool, seen, now=now),
        rise=0 if down else RISE,
        unreachable="its provider did not take the last order" if down else unreachable,
    )


def _down(pool: Pool, *, now: datetime) -> bool:
    """Whether the provider did not take an order a moment ago. Of several kinds of machine, only when none is left to ask for."""
    since = now - timedelta(seconds=settings.PROVIDER_RETRY_S)
    if not Worker.objects.filter(pool=pool, stop_reason=PROVIDER_DOWN, stopped_at__range=(since, now)).exists():
        return False
    return not PoolOffer.objects.filter(Q(unavailable_until__isnull=True) | Q(unavailable_until__lte=now), pool=pool).exists()


def _budget(pool: Pool, seen: Seen, *, now: datetime) -> int | None:
    """Workers the budget pays for. A day's budget that is spent leaves the base."""
    found = None if pool.budget_per_hour_microusd is None else _affordable(pool, seen, pool.budget_per_hour_microusd)
    if pool.budget_per_day_microusd is not None:
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if spent(pool, since=day, now=now) >= pool.budget_per_day_microusd:
            found = seen.base
    return found


def _affordable(pool: Pool, seen: Seen, budget: int) -> int | None:
    """Workers that so much an hour pays for; of several kinds of machine those there are at what was agreed, and more at the dearest price."""
    price = pool.price_per_hour_microusd
    dearest: int | None = PoolOffer.objects.filter(pool=pool).aggregate(most=Max("price_per_hour_microusd"))["most"]
    if dearest is None:
        return budget // price if price > 0 else None
    agreed: int = Worker.objects.filter(pool=pool, state__in=Worker.LIVE).aggregate(sum=Sum("price_per_hour_microusd"))["sum"] or 0
    return seen.live + max(0, budget - agreed) // dearest if dearest > 0 else None


def spent(pool: Pool, *, since: datetime, now: datetime) -> int:
    """Micro-dollars the pool's workers have cost since then, those that run now included."""
    lives = Worker.objects.filter(Q(stopped_at__isnull=True) | Q(stopped_at__gt=since), pool=pool).exclude(stop_reason__in=NEVER_RAN)
    times = lives.values_list("ordered_at", "stopped_at", "price_per_hour_microusd")
    return sum(of_seconds(price, max(0.0, ((stopped or now) - max(ordered, since)).total_seconds())) for ordered, stopped, price in times)


def _planned(pool: Pool, times: job_times.Times, *, now: datetime) -> tuple[Planned, ...]:
    rows = PlannedDemand.objects.filter(pool=pool, canceled_at__isnull=True, ends_at__gt=now, starts_at__lt=now + AHEAD)[:200]
    return tuple(
        Planned(
            starts_in_s=(row.starts_at - now).total_seconds(),
            ends_in_s=(row.ends_at - now).total_seconds(),
            jobs=row.jobs,
            work_s=row.work_s or row.jobs * times.all.mean_s,
            factor=row.factor,
            workers=row.workers,
        )
        for row in rows
    )


def _idle(worker: Worker, pool: Pool, *, now: datetime) -> Idle:
    return Idle(
        id=str(worker.id),
        idle_s=max(0.0, (now - worker.idle_since).total_seconds()) if worker.idle_since else 0.0,
        warm=tuple(str(key) for key in worker.warm) if isinstance(worker.warm, list) else (),
        spot=worker.market == Worker.Market.SPOT,
        price_per_hour_microusd=worker.price_per_hour_microusd,
        old_image=bool(pool.image and worker.image and worker.image != pool.image),
    )


def _by_offer(workers: Sequence[Worker]) -> dict[int, int]:
    found: dict[int, int] = {}
    for worker in workers:
        if worker.offer_id is not None:
            found[worker.offer_id] = found.get(worker.offer_id, 0) + 1
    return found
