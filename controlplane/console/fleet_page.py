"""The fleet: is there enough capacity now, will there be, and what does idle cost."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from controlplane.console import heat, numbers, pages, pool_chart, pool_rows, ranges, roles, worker_page
from controlplane.console.overview import address
from controlplane.kernel import money
from fleet import queries_capacity, queries_pools, queries_traffic
from fleet.buckets import BUCKETS
from fleet.queries_pools import PoolNow

LINKS = (("Planner", "ops:planner", "target"), ("Emergency", "ops:emergency", "zap"))


@roles.staff
def fleet(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    pools = queries_pools.pools_now(now=now)
    request.halted_pools = sum(p.state == "halted" for p in pools)  # type: ignore[attr-defined]
    rows = _rows(pools, span)
    ready, busy, live = (sum(getattr(p, name) for p in pools) for name in ("ready", "busy", "live"))
    slow = [r.now for r in rows if r.now.state in NEEDY]
    at_max = [p for p in pools if p.live >= p.pool.max > 0]
    context = {
        "rows": rows,
        "headline": _answer(pools, slow, ready, busy),
        "ready": ready,
        "ready_detail": f"{numbers.count(busy)} busy, {numbers.count(sum(p.starting for p in pools))} starting",
        "queue": sum(p.queue for p in pools),
        "queue_detail": f"in {numbers.plural(sum(1 for p in pools if p.queue), 'pool')}",
        "room": sum(max(0, p.pool.max - p.live) for p in pools),
        "room_detail": f"{numbers.count(len(at_max))} of {numbers.count(len(pools))} pools at their maximum",
        "cost": sum(p.cost_per_hour_microusd for p in pools),
        "cost_detail": f"{numbers.plural(live, 'worker')} now",
        "idle_cost": sum(p.idle * p.pool.price_per_hour_microusd for p in pools),
        "capacity": pages.part(request, lambda: capacity(pools, span)),
        "week": pages.part(request, lambda: week(pools, now)),
        "hours": [f"{hour:02d}" for hour in range(24)],
        "spend": pages.part(request, lambda: spend(pools, span, money_shown=roles.sees_money(request))),
        "links": [(label, href, icon) for label, name, icon in LINKS if (href := address(name))],
        "series_url": f"{reverse('ops:fleet_series')}?{request.GET.urlencode()}",
        "idle": sum(p.idle for p in pools),
        "may_fleet": roles.may(request, "fleet"),
    }
    csv_href = f"{reverse('ops:fleet_csv')}?{span.query()}"
    shell: dict[str, Any] = {"title": "Fleet", "active": "fleet", "span": span, "fragment": "console/_fleet.html", "csv_href": csv_href, "now": now}
    return pages.page(request, "console/fleet.html", context, **shell)


def _rows(pools: list[PoolNow], span: ranges.Range) -> list[pool_rows.PoolRow]:
    step_s = span.step_s(48)
    traffic = queries_traffic.traffic(start=span.start, end=span.end, step_s=step_s)
    return pool_rows.rows(pools, traffic, queries_traffic.times("wait", start=span.start, end=span.end, step_s=step_s))


NEEDY = {"halted": "cannot start workers", "empty": "has no workers", "short": "is short of workers"}


def _answer(pools: list[PoolNow], slow: list[PoolNow], ready: int, busy: int) -> str:
    if not pools:
        return "No pools yet"
    if slow:
        first = f"{slow[0].pool.slug} {NEEDY[slow[0].state]}"
        return first if len(slow) == 1 else f"{first}, {len(slow) - 1:,} more need{'s' if len(slow) == 2 else ''} you"
    if not ready:
        return "Scaled to zero: no workers, none needed"
    return f"Enough capacity: {numbers.count(busy)} of {numbers.count(ready)} ready workers are busy"


@roles.staff
def fleet_csv(request: HttpRequest) -> HttpResponseBase:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    header = ["pool", "state", "gpu", "busy", "ready", "starting", "draining", "base", "max", "queue", "oldest_wait_s", "wait_p95_s", "jobs_ended"]
    shows_money = roles.sees_money(request)
    rows = [
        [r.now.pool.slug, r.now.state, r.now.pool.gpu, r.now.busy, r.now.ready, r.now.starting, r.now.draining, r.now.pool.base, r.now.pool.max]
        + [r.now.queue, r.now.oldest_s, r.wait_p95, r.jobs]
        + ([money.to_usd(r.now.cost_per_hour_microusd)] if shows_money else [])
        for r in _rows(queries_pools.pools_now(now=now), span)
    ]
    return pages.csv_file("pools", header + (["cost_usd_per_hour"] if shows_money else []), rows)


@roles.staff
def fleet_series(request: HttpRequest) -> HttpResponse:
    """series.json of the fleet: the combined capacity."""
    now = timezone.now()
    return pages.series(request, [capacity(queries_pools.pools_now(now=now), ranges.parse(request.GET, now=now))["spec"]])


def capacity(pools: list[PoolNow], span: ranges.Range) -> dict[str, Any]:
    """Workers ready and needed of all pools together."""
    had = queries_capacity.minutes(start=span.start, end=span.end, step_s=span.step_s())
    spec = pool_chart.together(had, maximum=sum(p.pool.max for p in pools))
    needed = [v for v in had.needed() if v is not None]
    said = f"Workers ready and needed of all pools. {numbers.count(sum(p.ready for p in pools))} are ready now"
    return {
        "spec": spec,
        "legend": pool_chart.legend(spec),
        "summary": said + (f"; at most {max(needed):.1f} were needed in this range." if needed else "."),
        "known": bool(had.steps),
    }


def week(pools: list[PoolNow], now: datetime) -> dict[str, Any]:
    """The forecast of seven days, hour by hour, in shares of the maximum."""
    ahead = queries_capacity.forecasts((p.forecast_id for p in pools), now=now)
    known = [(p.pool, ahead[p.pool.id]) for p in pools if p.pool.id in ahead]
    return {"strip": heat.strip(known, now=now), "pools": len(known), "until": now + timedelta(days=7)}


def spend(pools: list[PoolNow], span: ranges.Range, *, money_shown: bool) -> dict[str, Any]:
    """Hours of workers by pool and by use; with money for those who see it."""
    found = queries_capacity.spend(start=span.start, end=span.end)
    names = {p.pool.id: p.pool.slug for p in pools}
    per = {b: sum(row.ms[b] for row in found.values()) for b in BUCKETS}
    cost = {b: sum(row.microusd[b] for row in found.values()) for b in BUCKETS}
    total_ms, total = sum(per.values()), sum(cost.values())
    by_pool = sorted(((row.total_microusd, row.total_ms, names.get(pool_id, "")) for pool_id, row in found.items()), reverse=True)
    most = by_pool[0] if by_pool else (0, 0, "")
    rows = []
    for amount, ms, slug in by_pool[:8]:
        share = amount / most[0] if most[0] else ms / most[1] if most[1] else 0.0
        text = numbers.usd(amount) if money_shown else numbers.dur(ms / 1000)
        rows.append((slug, share, text, "", reverse("ops:pool", args=[slug]) if slug else ""))
    waste = cost["idle"] + cost["starting"]
    said = f"Idle and starting cost {numbers.usd(waste)} of {numbers.usd(total)}." if money_shown and total else ""
    return {
        "total": total_ms,
        "parts": [(worker_page.WORDS[b], per[b] / 1000, worker_page.COLOURS[b]) for b in BUCKETS],
        "pools": rows,
        "said": said or f"{numbers.dur(total_ms / 1000)} of workers' time.",
    }
