"""Pages of the fleet: the list of pools, and one pool with its workers and why their number changed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone

from controlplane.console import charts, numbers, pages, pool_rows, ranges, roles
from controlplane.console.overview import address
from controlplane.kernel import money
from fleet import queries_pools, queries_traffic
from fleet.models import Pool, ScalingDecision, Worker
from fleet.queries_pools import WAIT_TARGET_S, PoolNow

DECISIONS_SHOWN = 12


@roles.staff
def fleet(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    pools = queries_pools.pools_now(now=now)
    request.halted_pools = sum(p.state == "halted" for p in pools)  # type: ignore[attr-defined]
    rows = _rows(pools, span)
    ready, busy, live = (sum(getattr(p, name) for p in pools) for name in ("ready", "busy", "live"))
    slow = [r.now.pool.slug for r in rows if r.now.state in ("halted", "empty", "short")]
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


def _answer(pools: list[PoolNow], slow: list[str], ready: int, busy: int) -> str:
    if not pools:
        return "No pools yet"
    if slow:
        return f"{slow[0]} needs you" if len(slow) == 1 else f"{len(slow)} pools need you: {', '.join(slow[:3])}"
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


# -- one pool ------------------------------------------------------------------------------------


@roles.staff
def pool(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    here = _one(slug, now, request)
    lives = queries_pools.spans(here.pool, start=min(span.start, now - timedelta(days=7)), end=now)
    kind = request.GET.get("decisions", "")
    kind = kind if kind in ("up", "down", "held") else ""
    context: dict[str, Any] = {
        "here": here,
        "pool": here.pool,
        "serves": queries_pools.served_by(here.pool),
        "measured": pages.part(request, lambda: measured(here, span, lives)),
        "decided": pages.part(request, lambda: decided(request, here.pool, kind, span)),
        "kind": kind,
        "kind_chips": _kind_chips(request, kind),
        "workers": pages.part(request, lambda: workers(here.pool, lives, now)),
        "hour": pages.part(request, lambda: where_the_hour_went(here.pool, lives, now)),
        "policy": policy(here.pool),
        "may_fleet": roles.may(request, "fleet"),
        "may_operate": roles.may(request, "operator") or roles.may(request, "fleet"),
        "workflows_url": address("ops:workflows"),
        "jobs_url": address("ops:jobs"),
        "decisions_csv": f"{reverse('ops:decisions_csv', args=[slug])}?{span.query()}{f'&decisions={kind}' if kind else ''}",
        "max_unit": f"of {here.pool.max:,}",
        "ready_detail": f"{here.busy:,} busy, {here.idle:,} idle, {here.starting:,} starting" + (f", {here.draining:,} leaving" if here.draining else ""),
    }
    if not isinstance(context["measured"], pages.Failed):
        found = context["measured"]
        context["peak_detail"] = f"peak {numbers.count(found['peak'])} in this range"
        context["jobs_detail"] = f"{numbers.plural(found['jobs'], 'job')} in this range"
        context["saved_detail"] = f"saved {numbers.usd(found['changes'].saved_microusd)} in this range"
    crumbs = [("Fleet", reverse("ops:fleet")), (slug, "")]
    shell: dict[str, Any] = {"title": slug, "active": "fleet", "crumbs": crumbs, "span": span, "fragment": "console/_pool.html", "now": now}
    return pages.page(request, "console/pool.html", context, csv_href=context["decisions_csv"], **shell)


def _one(slug: str, now: datetime, request: HttpRequest | None = None) -> PoolNow:
    found = queries_pools.pools_now(now=now)
    if request is not None:
        request.halted_pools = sum(p.state == "halted" for p in found)  # type: ignore[attr-defined]
    for here in found:
        if here.pool.slug == slug:
            return here
    raise Http404(f"There is no pool called {slug}.")


@roles.staff
def pool_series(request: HttpRequest, slug: str) -> HttpResponse:
    """series.json of the pool: capacity and waits."""
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    here = _one(slug, now)
    found = measured(here, span, queries_pools.spans(here.pool, start=span.start, end=now))
    return pages.series(request, [found["capacity"], found["waits"]])


def measured(here: PoolNow, span: ranges.Range, lives: list[Worker]) -> dict[str, Any]:
    """Charts and the figures of the tiles that come from the range."""
    pool, step_s = here.pool, span.step_s()
    traffic = queries_traffic.traffic(start=span.start, end=span.end, step_s=step_s, pool_id=pool.id)
    waits = queries_traffic.times("wait", start=span.start, end=span.end, step_s=step_s, pool_id=pool.id)
    x = traffic.times()
    ready = queries_pools.ready_line(lives, [min(t + step_s, int(span.end.timestamp())) for t in x])
    needed = [round(busy / (minutes * 60), 2) for busy, minutes in zip(traffic.line("busy_s"), charts.elapsed(traffic), strict=True)]
    total = traffic.total()
    recent = needed[-3:]
    p95 = waits.of().quantile(0.95)
    cold, starts = queries_pools.cold_start_p95(lives, since=span.now - timedelta(days=7))
    per_job_s = total.busy_s / total.jobs if total.jobs else None
    drains = here.queue * per_job_s / here.ready if per_job_s and here.ready and here.queue else None
    moves = list(queries_pools.decisions(pool=pool, start=span.start, end=span.end).exclude(action="hold", bound="").defer("inputs")[:500])
    marks = charts.markers(moves[:60])
    waiting = f"the oldest for {numbers.dur(here.oldest_s)}" if here.oldest_s is not None else "nothing waits"
    most = numbers.count(max(ready or [0]))
    return {
        "capacity": charts.capacity(x, ready, needed, maximum=pool.max, events=marks),
        "waits": charts.quantiles(waits, key="waits", target_s=WAIT_TARGET_S, events=marks),
        "legend": [("Ready", "--c1", "line"), ("Needed", "--c2", "line"), ("Wait p95", "--c3", "line"), ("Wait p50", "--c6", "dash")],
        "capacity_summary": f"Ready workers and workers' worth of work. {numbers.count(here.ready)} are ready now, at most {most} were.",
        "wait_summary": f"Queue wait p50 and p95. p95 over the range is {numbers.dur(p95)}; the target is {numbers.dur(WAIT_TARGET_S)}.",
        "p95": p95,
        "p95_kind": "bad" if p95 is not None and p95 > WAIT_TARGET_S else "",
        "needed": max(recent) if recent else 0.0,
        "peak": max(needed) if needed else 0.0,
        "cold": cold,
        "cold_detail": f"{numbers.plural(starts, 'start')} in 7 d" if starts else "no worker started in 7 d",
        "queue_detail": f"drains in about {numbers.dur(drains)}" if drains else waiting,
        # Before the pool was there nothing could be saved on it.
        "changes": queries_pools.changes(pool, moves, [n for t, n in zip(x, ready, strict=True) if t + step_s > pool.created_at.timestamp()], step_s=step_s),
        "jobs": total.jobs,
        "partial": waits.partial,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision with its words for the table."""

    d: ScalingDecision
    words: str
    tags: list[str]

    @property
    def saved(self) -> int:
        return -self.d.cost_change_microusd


def decided(request: HttpRequest, pool: Pool, kind: str, span: ranges.Range) -> pages.Slice:
    """Decisions of the range, newest first, a page of them."""
    found = queries_pools.decisions(pool=pool, kind=kind, start=span.start, end=span.end)
    after = pages.cursor(request)
    if after and len(after) == 2 and isinstance(after[1], int):
        with contextlib.suppress(ValueError):
            found = queries_pools.before(found, datetime.fromisoformat(str(after[0])), after[1])
    cut = pages.cut(request, list(found[: DECISIONS_SHOWN + 1]), lambda d: [d.at.isoformat(), d.id], size=DECISIONS_SHOWN)
    return replace(cut, rows=[DecisionRow(d, words(d), tags(d)) for d in cut.rows])


def tags(decision: ScalingDecision) -> list[str]:
    """The figures a decision rested on, short."""
    seen = decision.inputs if isinstance(decision.inputs, dict) else {}
    found = []
    if seen.get("queue") is not None:
        found.append(f"queue {seen['queue']}")
    if isinstance(seen.get("workers"), list):
        states = [w.get("state") for w in seen["workers"] if isinstance(w, dict)]
        found.append(f"workers {len(states)}")
        found += [f"{name} {states.count(name)}" for name in ("busy", "idle", "starting") if states.count(name)]
    if seen.get("start_failures"):
        found.append(f"failed starts {seen['start_failures']}")
    return found


def words(decision: ScalingDecision) -> str:
    """What was done, in two words."""
    if decision.action == "halted":
        return "Halted"
    if decision.applied:
        return f"{charts.signed(decision.applied)} worker{'' if abs(decision.applied) == 1 else 's'}"
    return "Held back" if decision.bound else "Hold"


def _kind_chips(request: HttpRequest, kind: str) -> list[dict[str, Any]]:
    query = request.GET.copy()
    query.pop("cursor", None)
    found = []
    for key, label, icon in (("", "All", ""), ("up", "Up", "arrow-up"), ("down", "Down", "arrow-down"), ("held", "Held back", "lock")):
        query["decisions"] = key
        if not key:
            query.pop("decisions")
        found.append({"label": label, "href": f"?{query.urlencode()}#decisions", "on": key == kind, "icon": icon})
    return found


def workers(pool: Pool, lives: list[Worker], now: datetime) -> dict[str, Any]:
    """Live workers with what they run, and the last ones that went."""
    live = queries_pools.live_workers(pool)
    running = queries_pools.running_by_worker(live)
    return {"live": [_worker(w, running.get(w.id), now) for w in live], "gone": queries_pools.gone(lives)}


def _fetching(w: Worker) -> tuple[int, int] | None:
    """Bytes here and in all of the models that the worker's job waits for, as its last heartbeat said."""
    store = w.usage.get("store")
    loading = store.get("loading") if isinstance(store, dict) else None
    done, total = (loading.get("done_bytes"), loading.get("total_bytes")) if isinstance(loading, dict) else (None, None)
    if type(done) is not int or type(total) is not int or not 0 <= done <= total <= 2**60:
        return None
    return done, total


def _worker(w: Worker, job: dict[str, Any] | None, now: datetime) -> dict[str, Any]:
    since = w.ready_at or w.ordered_at
    hours = (now - since).total_seconds() / 3600
    used, size = w.usage.get("vram_used_bytes") or 0, w.usage.get("vram_total_bytes") or 0
    silent = w.seen_at is not None and (now - w.seen_at).total_seconds() > 15
    return {
        "w": w,
        "job": job,
        "age_s": (now - w.ordered_at).total_seconds(),
        "idle_s": (now - w.idle_since).total_seconds() if w.idle_since and w.state == "idle" else None,
        "fetching": _fetching(w) if job is not None and not silent else None,
        "memory": (used / size) if size else None,
        "memory_used": used,
        "ram_used": w.usage.get("ram_used_bytes") or 0,
        "per_hour": round(w.jobs_done / hours) if hours > 0.05 and w.jobs_done else w.jobs_done,
        "silent": silent,
        "may_drain": w.drain_asked_at is None,
    }


def where_the_hour_went(pool: Pool, lives: list[Worker], now: datetime) -> dict[str, Any]:
    """The last hour of all workers, by use."""
    start = now - timedelta(hours=1)
    hour = queries_pools.hour(pool, lives, start=start, now=now)
    parts = [
        ("Running", hour.running, "--c1"),
        ("Loading models", hour.loading, "--c3"),
        ("Idle", hour.idle, "--line-strong"),
        ("Starting", hour.starting, "--c5"),
        ("Draining", hour.draining, "--c6"),
    ]
    return {"hour": hour, "parts": parts}


def policy(pool: Pool) -> list[tuple[str, str]]:
    """The pool's rule, in words."""
    return [
        ("Provider", pool.get_provider_display()),
        ("Minimum, maximum", f"{pool.base:,}, {pool.max:,}"),
        ("Policy", pool.policy),
        ("Wait target p95", numbers.dur(WAIT_TARGET_S)),
    ]


@roles.staff
def decisions_csv(request: HttpRequest, slug: str) -> HttpResponseBase:
    now = timezone.now()
    span = ranges.parse(request.GET, now=now)
    here = _one(slug, now)
    found = queries_pools.decisions(pool=here.pool, kind=request.GET.get("decisions", ""), start=span.start, end=span.end)
    header = ["at", "last_seen_at", "repeats", "policy", "action", "wanted", "applied", "bound", "reason", "outcome"]
    shows_money = roles.sees_money(request)

    def line(d: ScalingDecision) -> list[Any]:
        row: list[Any] = [d.at, d.last_seen_at, d.repeats, d.policy, d.action, d.wanted, d.applied, d.bound, d.reason, d.outcome]
        return row + ([money.to_usd(d.cost_change_microusd)] if shows_money else [])

    rows = (line(d) for d in found.defer("inputs")[:50_000].iterator(chunk_size=1000))
    return pages.csv_file(f"{slug}-decisions", header + (["cost_change_usd_per_hour"] if shows_money else []), rows)
