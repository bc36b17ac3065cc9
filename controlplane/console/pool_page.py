"""One pool: are we keeping up, will we, and why did its size change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from controlplane.console import (
    decision_pages,
    emergency_words,
    numbers,
    pages,
    policy_words,
    pool_actions,
    pool_chart,
    pool_found,
    pool_workers,
    ranges,
    roles,
    worker_page,
)
from controlplane.console.overview import address
from fleet import buckets, costs, forecast_alerts, forecasts, queries_capacity, queries_pools, queries_traffic
from fleet.models import EmergencyAction, Pool, Worker
from fleet.queries_capacity import Ahead, Minutes
from fleet.queries_pools import PoolNow

NEEDED_OVER_S = 300


@roles.staff
def pool(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    here = pool_found.found(slug, now=now, request=request)
    span = pool_found.span_of(request, here.pool, now)
    everybody = queries_pools.workers(here.pool, now=now)
    live = [w for w in everybody if w.state in Worker.LIVE]
    queries_pools.fill(here, live)
    kind = decision_pages.kind_of(request)
    emergencies = emergency_words.banner(here.pool, roles=roles.of(request), now=now)
    maximum = max([here.pool.max, *(max(e.action.max or 0, e.action.base or 0) for e in emergencies if e.action.kind == EmergencyAction.Kind.RAISE)])
    money = roles.sees_money(request)
    context: dict[str, Any] = {
        "here": here,
        "pool": here.pool,
        "maximum": maximum,
        "measured": pages.part(request, lambda: measured(here, span, everybody, request.GET.get("units", ""), maximum, money=money)),
        "decided": pages.part(request, lambda: decision_pages.listed(request, here.pool, kind, span, everybody)),
        "kind": kind,
        "kind_chips": decision_pages.kind_chips(request, kind),
        "workers": pages.part(request, lambda: workers(request, here, live, everybody, now)),
        "hour": pages.part(request, lambda: where_the_hour_went(here.pool, now)),
        "policy": policy_words.card(here.pool, money=money),
        "emergencies": emergencies,
        "may_fleet": roles.may(request, "fleet"),
        "may_operate": roles.may(request, "operator") or roles.may(request, "fleet"),
        "workflows_url": address("ops:workflows"),
        "jobs_url": address("ops:jobs"),
        "decisions_csv": f"{reverse('ops:decisions_csv', args=[slug])}?{span.query()}{f'&decisions={kind}' if kind else ''}",
        "ready_detail": _ready_detail(here),
        "max_unit": f"of {maximum:,}",
        "worker_actions": worker_page.acts(),
        "series_url": f"{reverse('ops:pool_series', args=[slug])}?{request.GET.urlencode()}",
        "emergency_url": reverse("ops:pool_emergency", args=[slug]),
        **pool_actions.forms(here),
    }
    if not isinstance(context["measured"], pages.Failed) and not context["measured"]["looks"] and "ahead" not in request.GET:
        span = replace(span, ahead="0")  # nothing is known of the future: the range does not claim to show it
    if not isinstance(context["measured"], pages.Failed) and money:
        context["saved_detail"] = f"saved {numbers.usd(context['measured']['saved'])} in this range"
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, "")]
    shell: dict[str, Any] = {"title": slug, "active": "fleet", "crumbs": crumbs, "span": span, "fragment": "console/_pool.html", "now": now}
    return pages.page(request, "console/pool.html", context, csv_href=context["decisions_csv"], **shell)


def _ready_detail(here: PoolNow) -> str:
    parts = [f"{here.busy:,} busy", f"{here.idle:,} idle"]
    parts += [f"{n:,} {word}" for n, word in ((here.starting, "starting"), (here.draining, "leaving"), (here.faulted, "faulted")) if n]
    return ", ".join(parts)


@roles.staff
def pool_series(request: HttpRequest, slug: str) -> HttpResponse:
    """series.json of the pool: capacity and waits."""
    now = timezone.now()
    here = pool_found.found(slug, now=now)
    span = pool_found.span_of(request, here.pool, now)
    shown = measured(here, span, [], request.GET.get("units", ""), here.pool.max, money=roles.sees_money(request))
    return pages.series(request, [shown["capacity"], shown["waits"]])


def measured(here: PoolNow, span: ranges.Range, everybody: Sequence[Worker], units: str, maximum: int, *, money: bool) -> dict[str, Any]:
    """Charts and the figures of the tiles that come from the range."""
    pool, now, step_s = here.pool, span.now, span.step_s()
    ahead = queries_capacity.forecasts([here.forecast_id], now=now).get(pool.id)
    plans = queries_capacity.announced(pool.id, start=span.start, end=now + timedelta(days=7))
    had = queries_capacity.minutes(start=span.start, end=span.end, step_s=step_s, pool_id=pool.id)
    waits = queries_traffic.times("wait", start=span.start, end=span.end, step_s=step_s, pool_id=pool.id)
    moves = list(queries_pools.decisions(pool=pool, start=span.start, end=span.end).exclude(action="hold", bound="").defer("inputs")[:500])
    job_s = _job_s(had)
    shown = pool_chart.unit(units if units != "usd" or money else "", pool, job_s=job_s)
    # without a forecast or anything announced there is nothing to be seen ahead, unless somebody asks to look
    looks = ahead is not None or any(p.ends_at > now for p in plans)
    until = pool_chart.until(span, span.ahead_s if looks else 0.0)
    marks = pool_chart.events(moves[:60], [p for p in plans if p.starts_at < until])
    capacity = pool_chart.capacity(had, pool=pool, ahead=ahead, plans=plans, until=until, shown=shown, maximum=maximum, events=marks)
    p95 = waits.of().quantile(0.95)
    return {
        "capacity": capacity,
        "looks": looks,
        "waits": pool_chart.waits(waits, target_s=pool.target_s, future=pool_chart.times_ahead(had, until), events=marks),
        "legend": pool_chart.legend(capacity),
        "wait_legend": [("Wait p95", "--c3", "line"), ("Wait p50", "--c6", "dash")],
        "capacity_summary": pool_chart.summary(had, ahead, ready=here.ready, maximum=maximum, until=until),
        "wait_summary": f"Queue wait p50 and p95. p95 over the range is {numbers.dur(p95)}; the target is {numbers.dur(pool.target_s)}.",
        "units": [(key, word, key == shown.key) for key, word in pool_chart.UNITS if key != "usd" or money],
        "unit": shown,
        "p95": p95,
        "p95_kind": "bad" if p95 is not None and p95 > pool.target_s else "",
        "p95_detail": _worst(waits, p95),
        "target": f"target {numbers.dur(pool.target_s)}",
        "plans": [(pool_chart.plan_label(p), p.starts_at) for p in plans if p.ends_at > now][:3],
        "forecast_words": pool_chart.forecast_words(ahead, now=now),
        "alerts": [alert.shown(money_shown=money) for alert in alerts(pool, ahead, now)],
        "changes": queries_pools.changes(moves),
        "saved": costs.of_seconds(pool.price_per_hour_microusd, had.spared_s(pool.max)),
        "seed_saved": _seed_saved(pool) if money else "",
        "partial": waits.partial,
        **_needed(had, ahead, now),
        **_queue(here, job_s),
        **_cold(everybody, now),
    }


def alerts(pool: Pool, ahead: Ahead | None, now: datetime) -> list[forecast_alerts.Alert]:
    """When the forecast reaches the maximum, the next time only: the strip of the fleet's page shows the rest."""
    if ahead is None or now - ahead.row.made_at > forecasts.STALE or any(queries_capacity.numbers_of(point) is None for point in ahead.row.points):
        return []
    return forecast_alerts.of(pool, ahead.row, now=now)[:1]


def _job_s(had: Minutes) -> float | None:
    """Seconds a job of the range takes a worker."""
    arrivals = sum(s.arrivals for s in had.steps.values())
    return sum(s.work_s for s in had.steps.values()) / arrivals if arrivals else None


def _needed(had: Minutes, ahead: Ahead | None, now: datetime) -> dict[str, Any]:
    """Workers' worth of work that arrived in the last five minutes, and the highest ahead or before."""
    width = max(NEEDED_OVER_S, had.step_s)
    recent = [s.work_s for at, s in had.steps.items() if at > now.timestamp() - width - 60]
    lines = [v for v in had.needed() if v is not None]
    peak = ahead.peak(start=now, end=now + timedelta(hours=6)) if ahead else None
    detail = f"peak {peak[0]:.1f} at {peak[1]:%H:%M}" if peak else f"peak {numbers.count(round(max(lines, default=0.0), 1))} in this range"
    return {"needed": round(sum(recent) / width, 1), "needed_detail": detail}


def _queue(here: PoolNow, job_s: float | None) -> dict[str, Any]:
    """When the queue would be empty, were nothing else to come."""
    waiting = f"the oldest for {numbers.dur(here.oldest_s)}" if here.oldest_s is not None else "nothing waits"
    if not here.queue or not job_s:
        return {"queue_detail": waiting}
    if not here.ready:
        return {"queue_detail": f"no worker takes them yet, {waiting}" if here.oldest_s is not None else waiting}
    return {"queue_detail": f"drains in about {numbers.dur(here.queue * job_s / here.ready)}"}


def _cold(everybody: Sequence[Worker], now: datetime) -> dict[str, Any]:
    seconds, starts = queries_pools.cold_start_p95(everybody, since=now - timedelta(days=7))
    return {"cold": seconds, "cold_detail": f"{numbers.plural(starts, 'start')} in 7 d" if starts else "no worker started in 7 d"}


def _worst(waits: queries_traffic.Times, p95: float | None) -> str:
    """The worst step of the range, where it stands out."""
    lines = [(value, at) for value, at in zip(waits.line(0.95), queries_traffic.steps(waits.start, waits.end, waits.step_s), strict=True) if value is not None]
    jobs = numbers.plural(waits.of().count, "job")
    if not lines or p95 is None:
        return "no job started in this range"
    value, at = max(lines)
    if value > 1.5 * p95 and len(lines) > 1:
        return f"{numbers.dur(value, tile=True)} at {datetime.fromtimestamp(at, tz=waits.start.tzinfo):%H:%M}"
    return f"{jobs} in this range"


def workers(request: HttpRequest, here: PoolNow, live: Sequence[Worker], everybody: Sequence[Worker], now: datetime) -> dict[str, Any]:
    """Live workers with what they run, and the last ones that went."""
    rows = pool_workers.rows(live, here.pool, queries_pools.running_by_worker(live), now)
    kind = request.GET.get("workers", "")
    kind = kind if kind in dict(pool_workers.KINDS) else ""
    query = request.GET.copy()
    chips = []
    for key, label in pool_workers.KINDS:
        query["workers"] = key
        count = sum(pool_workers.is_of(r, key) for r in rows)
        chips.append({"label": label, "count": count, "on": key == kind, "href": f"?{query.urlencode()}#workers"})
    query["workers"], query["all"] = kind, "1"
    more = min(pool_workers.MOST, sum(pool_workers.is_of(r, kind) for r in rows))
    shown = pool_workers.listed(rows, kind, everything="all" in request.GET)
    return {
        "rows": shown,
        "live": len(rows),
        "chips": chips,
        "more": more - len(shown),
        "more_href": f"?{query.urlencode()}#workers",
        "gone": queries_pools.gone(everybody),
    }


def where_the_hour_went(pool: Pool, now: datetime) -> dict[str, Any]:
    """This clock hour and the one before, by use: every second in one bucket, their money adding up to the bill."""
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    hours = queries_capacity.spend(start=start, end=now, pool_id=pool.id).get(pool.id, buckets.Split())
    return {
        "since": start,
        "total": hours.total_ms,
        "waste_microusd": hours.microusd["idle"] + hours.microusd["starting"],
        "total_microusd": hours.total_microusd,
        "parts": [(worker_page.WORDS[b], hours.ms[b] / 1000, worker_page.COLOURS[b]) for b in buckets.BUCKETS],
    }


def _seed_saved(pool: Any) -> str:
    """What sizing saved against the seed's rule on the last whole day that was compared."""
    day = getattr(pool, "saved_day", None)
    if day is None:
        return ""
    difference = pool.saved_seed - pool.saved_replayed
    said = f"{numbers.usd(difference)} saved" if difference >= 0 else f"{numbers.usd(-difference)} more spent"
    return f"{said} on {day:%-d %b} against the threshold rule on the same jobs"
