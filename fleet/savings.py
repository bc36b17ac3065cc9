"""What sizing saved: for each pool and day that is over, what its workers really cost, and what three ways to size it cost on the same
arrivals in the simulator: its own policy, the seed's threshold rule with its exact numbers, and its maximum all day.

Replay is compared with replay; the actual cost stands beside them, as real starts fail and real days have interruptions. A day is
worked out once, and again only when asked: the same day gives the same row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Q

from controlplane.kernel import money
from fleet import history, queries_traffic
from fleet.buckets import NEVER_RAN
from fleet.costs import of_seconds
from fleet.models import PolicyRevision, Pool, SavingsDay, Worker
from fleet.planning.playing import Terms, play
from fleet.planning.replay import terms_of

BACK = timedelta(days=14)
"""How far back days are caught up."""
SETTLES = timedelta(minutes=10)
"""How long after midnight the last jobs of a day may still end."""
SIMULATED = 50_000
BUDGET_S = 120.0
SEED_KNOBS = {"queue_per_worker": 0.8, "idle_s": 300.0}


def of_day(pool: Pool, day: date, *, now: datetime) -> SavingsDay:
    """Work the day out and keep it."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = start + timedelta(days=1)
    since = max(start, min(pool.created_at, end - timedelta(minutes=15)))
    came = history.of_pool(pool, start=since, end=end, now=now, simulated=SIMULATED)
    own = _terms(pool, until=end)
    seed = Terms("threshold", own.base, own.maximum, SEED_KNOBS, own.target_s, own.target_share, own.price_per_hour_microusd)
    static = Terms("threshold", own.maximum, own.maximum, {}, own.target_s, own.target_share, own.price_per_hour_microusd)
    ours, theirs, peak = (play(terms, came) for terms in (own, seed, static))
    row, _ = SavingsDay.objects.update_or_create(
        pool=pool,
        day=day,
        defaults={
            "jobs": came.jobs,
            "actual_microusd": spent(pool, start=since, end=min(end, now)),
            "actual_within": _within(pool, since, end, own.target_s),
            "replayed_microusd": ours.cost_microusd,
            "replayed_within": ours.within if came.jobs else None,
            "seed_microusd": theirs.cost_microusd,
            "seed_within": theirs.within if came.jobs else None,
            "static_microusd": peak.cost_microusd,
            "static_within": peak.within if came.jobs else None,
            "made_at": now,
        },
    )
    return row


def catch_up(*, now: datetime, budget_s: float = BUDGET_S) -> int:
    """Work out the finished days that have no row yet, newest first, for as long as the budget lasts; says how many."""
    last = (now - SETTLES).astimezone(UTC).date() - timedelta(days=1)
    first = last - BACK + timedelta(days=1)
    have = set(SavingsDay.objects.filter(day__gte=first).values_list("pool_id", "day"))
    began, made = time.monotonic(), 0
    pools = list(Pool.objects.all())
    for back in range(BACK.days):
        day = last - timedelta(days=back)
        for pool in pools:
            if (pool.id, day) in have or pool.created_at.astimezone(UTC).date() > day:
                continue
            if made and time.monotonic() - began > budget_s:
                return made
            of_day(pool, day, now=now)
            made += 1
    return made


def days(*, pool: Pool | None = None, since: date | None = None, until: date | None = None) -> list[SavingsDay]:
    """The rows of these days, newest first."""
    found = SavingsDay.objects.select_related("pool").order_by("-day", "pool__slug")
    if pool is not None:
        found = found.filter(pool=pool)
    if since is not None:
        found = found.filter(day__gte=since)
    if until is not None:
        found = found.filter(day__lte=until)
    return list(found[:5000])


@dataclass(frozen=True, slots=True)
class Sum:
    """Days added up. Shares are of all jobs."""

    days: int
    jobs: int
    actual_microusd: int
    replayed_microusd: int
    seed_microusd: int
    static_microusd: int
    actual_within: float | None
    replayed_within: float | None
    seed_within: float | None
    static_within: float | None

    @property
    def saved_microusd(self) -> int:
        """Against the seed's rule; negative when ours cost more."""
        return self.seed_microusd - self.replayed_microusd

    @property
    def saved_static_microusd(self) -> int:
        return self.static_microusd - self.replayed_microusd

    def said(self) -> str:
        """The honest line."""
        if not self.days:
            return "No day has been worked out yet: the first one is, some minutes after its midnight in UTC."
        return (
            f"Simulated on the same arrivals of {self.days} day{'' if self.days == 1 else 's'}: this sizing {money.display(self.replayed_microusd)}"
            f"{_share(self.replayed_within)}, the seed's rule {money.display(self.seed_microusd)}{_share(self.seed_within)}, "
            f"the maximum all day {money.display(self.static_microusd)}{_share(self.static_within)}. "
            f"What was really spent: {money.display(self.actual_microusd)}{_share(self.actual_within)}."
        )


def total(rows: Iterable[SavingsDay]) -> Sum:
    """The sum of these days."""
    found = list(rows)

    def within(name: str) -> float | None:
        known = [(getattr(row, name), row.jobs) for row in found if getattr(row, name) is not None and row.jobs]
        return sum(share * n for share, n in known) / sum(n for _, n in known) if known else None

    def cost(name: str) -> int:
        return sum(getattr(row, f"{name}_microusd") for row in found)

    return Sum(
        days=len({row.day for row in found}),
        jobs=sum(row.jobs for row in found),
        actual_microusd=cost("actual"),
        replayed_microusd=cost("replayed"),
        seed_microusd=cost("seed"),
        static_microusd=cost("static"),
        actual_within=within("actual_within"),
        replayed_within=within("replayed_within"),
        seed_within=within("seed_within"),
        static_within=within("static_within"),
    )


COLUMNS = ("day", "pool", "jobs", "actual_usd", "actual_within", "replayed_usd", "replayed_within", "seed_usd", "seed_within", "static_usd", "static_within")


def as_row(row: SavingsDay) -> dict[str, Any]:
    """One day by COLUMNS; money as exact dollars."""
    values: dict[str, Any] = {"day": row.day.isoformat(), "pool": row.pool.slug, "jobs": row.jobs}
    for name in ("actual", "replayed", "seed", "static"):
        share = getattr(row, f"{name}_within")
        values |= {f"{name}_usd": money.to_usd(getattr(row, f"{name}_microusd")), f"{name}_within": None if share is None else round(share, 6)}
    return values


def spent(pool: Pool, *, start: datetime, end: datetime) -> int:
    """Micro-dollars the pool's workers cost between two moments, from order to end."""
    lives = Worker.objects.filter(Q(stopped_at__isnull=True) | Q(stopped_at__gt=start), pool=pool, ordered_at__lt=end).exclude(stop_reason__in=NEVER_RAN)
    return sum(
        of_seconds(price, max(0.0, (min(stopped or end, end) - max(ordered, start)).total_seconds()))
        for ordered, stopped, price in lives.values_list("ordered_at", "stopped_at", "price_per_hour_microusd")
    )


def _terms(pool: Pool, *, until: datetime) -> Terms:
    """The terms in force at the end of the day."""
    revision = PolicyRevision.objects.filter(pool=pool, created_at__lt=until).order_by("-number").first()
    if revision is None:
        return terms_of(pool)
    then = Pool(slug=pool.slug, created_at=pool.created_at)
    for name in ("policy", "knobs", "base", "max", "target_s", "target_share", "price_per_hour_microusd", "budget_per_hour_microusd"):
        setattr(then, name, revision.terms.get(name, getattr(pool, name)))
    return terms_of(then)


def _within(pool: Pool, start: datetime, end: datetime, target_s: float) -> float | None:
    """Share of the real waits within the target, from the minutes' histograms."""
    waits = queries_traffic.times("wait", start=start, end=end, step_s=86400, pool_id=pool.id).of()
    return waits.at_most(target_s) / waits.count if waits.count else None


def _share(within: float | None) -> str:
    return "" if within is None else f" ({within * 100:.1f}% in time)"
