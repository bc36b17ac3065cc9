"""The fleet for /metrics: what each pool should have, has and may have, why, and what it costs. Read at scrape, the same few queries whatever has run.

What sizing saw is taken from its last decision, so that a scrape weighs no queue of its own. A decision older than STALE says nothing:
then the wish is absent, which is an alert and, for whoever scales by it, a reason to hold. Counters begin anew at midnight UTC.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Min, OuterRef, Subquery, Sum
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fleet import forecast_alerts, overflow
from fleet.models import EmergencyAction, Forecast, Pool, PoolOffer, SavingsDay, ScalingDecision, Worker, WorkerHour
from fleet.observing import FAILED_STARTS
from fleet.sizing import policies

MOST_POOLS = 200
STALE = timedelta(minutes=5)
STARTS = 50
"""Cold starts of a pool that its percentiles rest on."""
LOOKED_AT = 5000
ACTIONS = ("up", "down", "hold", "halted", "image")
PHASES = {"ready": Worker.READY, "busy": (Worker.State.BUSY,), "coming": Worker.COMING, "draining": ("draining",), "faulted": ("faulted",)}
Family = GaugeMetricFamily | CounterMetricFamily


def families(*, now: datetime) -> Iterator[Family]:
    """Every family, each with all pools."""
    pools = list(Pool.objects.order_by("slug")[:MOST_POOLS])
    names = {pool.id: pool.slug for pool in pools}
    said = _decisions(pools, now)
    yield from _sizes(pools, said)
    yield from _waits(pools, said)
    yield from _standing(pools, said, now)
    yield from _moves(names, now)
    yield from _starts(names, now)
    yield from _forecasts(pools, now)
    yield from _money(pools, now)
    yield from _emergencies(names, now)


def wanted(decision: ScalingDecision) -> int:
    """The size a decision asks for, within the pool's floor and maximum of that moment: what others may scale by."""
    seen: Mapping[str, Any] = decision.inputs
    live = _number(seen.get("ready")) + len(seen.get("coming_s") or ())
    asked = seen.get("asked")
    size = _number(asked) if asked is not None else live
    return int(max(_number(seen.get("base")), min(_number(seen.get("maximum"), size), size)))


def _decisions(pools: Sequence[Pool], now: datetime) -> dict[int, ScalingDecision]:
    """The last decision of each pool, where it is fresh."""
    last = ScalingDecision.objects.filter(pool=OuterRef("pk"), policy__in=policies.POLICIES, at__lte=now).order_by("-at", "-id").values("id")[:1]
    ids = [id_ for id_ in Pool.objects.filter(id__in=[p.id for p in pools]).annotate(last=Subquery(last)).values_list("last", flat=True) if id_]
    return {row.pool_id: row for row in ScalingDecision.objects.filter(id__in=ids, last_seen_at__gte=now - STALE)}


def _sizes(pools: Sequence[Pool], said: Mapping[int, ScalingDecision]) -> Iterator[Family]:
    states: dict[int, Counter[str]] = defaultdict(Counter)
    found = Worker.objects.filter(state__in=Worker.LIVE).order_by().values_list("pool_id", "state").annotate(n=Count("id"))
    for pool_id, state, n in found:
        states[pool_id][state] = n
    wish = GaugeMetricFamily(
        "comfyplane_pool_wanted_workers", "Workers the sizing policy asks for, within floor and maximum; absent when unknown", labels=["pool"]
    )
    own = GaugeMetricFamily("comfyplane_pool_base_workers", "Workers the pool keeps by its own policy", labels=["pool"])
    floor = GaugeMetricFamily("comfyplane_pool_floor_workers", "Workers kept now, as forecast and emergency measures have moved the base", labels=["pool"])
    most = GaugeMetricFamily("comfyplane_pool_maximum_workers", "Workers the pool may have now, emergency measures included", labels=["pool"])
    by_phase = {
        phase: GaugeMetricFamily(f"comfyplane_pool_{phase}_workers", help_, labels=["pool"])
        for phase, help_ in (
            ("ready", "Workers that can take jobs, those at work included"),
            ("busy", "Workers at work"),
            ("coming", "Workers ordered, starting or loading"),
            ("draining", "Workers that finish and leave"),
            ("faulted", "Workers taken out to be looked at"),
        )
    }
    for pool in pools:
        inputs: Mapping[str, Any] = said[pool.id].inputs if pool.id in said else {}
        if pool.id in said:
            wish.add_metric([pool.slug], wanted(said[pool.id]))
        own.add_metric([pool.slug], pool.base)
        floor.add_metric([pool.slug], _number(inputs.get("base"), pool.base))
        most.add_metric([pool.slug], _number(inputs.get("maximum"), pool.max))
        for phase, family in by_phase.items():
            family.add_metric([pool.slug], sum(states[pool.id][str(state)] for state in PHASES[phase]))
    yield from (wish, own, floor, most, *by_phase.values())


def _waits(pools: Sequence[Pool], said: Mapping[int, ScalingDecision]) -> Iterator[Family]:
    target = GaugeMetricFamily("comfyplane_pool_wait_target_seconds", "Wait target: a share of the jobs starts within it", labels=["pool"])
    share = GaugeMetricFamily("comfyplane_pool_wait_target_ratio", "Share of the jobs that is to start within the target", labels=["pool"])
    predicted = GaugeMetricFamily("comfyplane_pool_predicted_wait_seconds", "Wait that share of new jobs is expected to stay under", labels=["pool"])
    clear = GaugeMetricFamily("comfyplane_pool_queue_clear_seconds", "Time until all that waits now has begun, with the workers there are", labels=["pool"])
    for pool in pools:
        target.add_metric([pool.slug], pool.target_s)
        share.add_metric([pool.slug], pool.target_share)
        if (row := said.get(pool.id)) is None:
            continue
        if row.predicted_wait_s is not None:
            predicted.add_metric([pool.slug], row.predicted_wait_s)
        seen: Mapping[str, Any] = row.inputs
        ready, coming = int(_number(seen.get("ready"))), len(seen.get("coming_s") or ())
        mean_s, cold_s = _number((seen.get("job") or {}).get("mean_s")), _number((seen.get("cold") or {}).get("p50_s"))
        queue = _number(seen.get("queue"))
        work_s = _number(seen.get("queue_work_s"), queue * mean_s)
        busy = int(_number(seen.get("busy")))
        wait_s = overflow.wait(work_s, ready=ready, busy=busy, live=ready + coming, mean_s=mean_s, cold_s=cold_s) if queue else 0.0
        clear.add_metric([pool.slug], round(wait_s, 3))
    yield from (target, share, predicted, clear)


def _standing(pools: Sequence[Pool], said: Mapping[int, ScalingDecision], now: datetime) -> Iterator[Family]:
    halted = GaugeMetricFamily("comfyplane_pool_halted", "Whether ordering stopped after a crash loop", labels=["pool"])
    paused = GaugeMetricFamily("comfyplane_pool_sizing_paused", "Whether somebody paused sizing", labels=["pool"])
    down = GaugeMetricFamily("comfyplane_pool_provider_unavailable", "Whether the provider could not be asked or did not take the last order", labels=["pool"])
    heard = GaugeMetricFamily(
        "comfyplane_provider_heard_seconds", "Seconds since the provider last listed the pool's workers or told of a change; absent before", labels=["pool"]
    )
    at_most = GaugeMetricFamily("comfyplane_pool_at_maximum", "Whether more workers are wanted than the pool may have", labels=["pool"])
    for pool in pools:
        bound = said[pool.id].bound if pool.id in said else ""
        halted.add_metric([pool.slug], pool.halted_at is not None)
        paused.add_metric([pool.slug], pool.paused_until is not None and pool.paused_until > now)
        down.add_metric([pool.slug], bound == "provider unavailable")
        at_most.add_metric([pool.slug], bound.startswith("maximum of"))
        if pool.provider_heard_at is not None:
            heard.add_metric([pool.slug], max(0.0, (now - pool.provider_heard_at).total_seconds()))
    yield from (halted, paused, down, at_most, heard)


def _moves(names: Mapping[int, str], now: datetime) -> Iterator[Family]:
    """Decisions as rows: equal ones in a row are one, so this counts changes of mind, not ticks."""
    decided = CounterMetricFamily(
        "comfyplane_scaling_decisions", "Sizing decisions since midnight UTC; equal ones in a row are one", labels=["pool", "action", "policy"]
    )
    sums: Counter[tuple[str, str, str]] = Counter()
    rows = (
        ScalingDecision.objects.filter(pool_id__in=names, at__gte=_midnight(now)).order_by().values_list("pool_id", "action", "policy").annotate(n=Count("id"))
    )
    for pool_id, action, policy, n in rows:
        sums[names[pool_id], action if action in ACTIONS else "other", policy if policy in policies.POLICIES else "other"] += n
    for labels, n in sorted(sums.items()):
        decided.add_metric(list(labels), n)
    yield decided


def _starts(names: Mapping[int, str], now: datetime) -> Iterator[Family]:
    launched = CounterMetricFamily("comfyplane_worker_launches", "Workers ordered since midnight UTC", labels=["pool"])
    failed = CounterMetricFamily("comfyplane_worker_failed_starts", "Workers that died without a job since midnight UTC, by reason", labels=["pool", "reason"])
    cold = GaugeMetricFamily(
        "comfyplane_worker_cold_start_seconds", "Time from order to first claim of the last starts, by percentile", labels=["pool", "percentile"]
    )
    taken = CounterMetricFamily("comfyplane_worker_interruptions", "Workers the provider took away, ever", labels=["pool", "market"])
    today = _midnight(now)
    ordered = dict(Worker.objects.filter(pool_id__in=names, ordered_at__gte=today).order_by().values_list("pool_id").annotate(n=Count("id")))
    ended = Worker.objects.filter(pool_id__in=names, state__in=Worker.GONE, stopped_at__gte=today, stop_reason__in=FAILED_STARTS, jobs_done=0)
    bad = {(pool, why): n for pool, why, n in ended.order_by().values_list("pool_id", "stop_reason").annotate(n=Count("id"))}
    took: dict[int, list[float]] = defaultdict(list)
    recent = Worker.objects.filter(pool_id__in=names, ready_at__isnull=False, ordered_at__gte=now - timedelta(days=7)).order_by("-ordered_at")
    for pool_id, at, ready in recent.values_list("pool_id", "ordered_at", "ready_at")[:LOOKED_AT]:
        if len(took[pool_id]) < STARTS and ready is not None:
            took[pool_id].append(max(0.0, (ready - at).total_seconds()))
    for pool_id, slug in names.items():
        launched.add_metric([slug], ordered.get(pool_id, 0))
        for why in FAILED_STARTS:
            failed.add_metric([slug, why], bad.get((pool_id, why), 0))
        values = sorted(took[pool_id])
        for percentile in (50, 90, 99) if values else ():
            cold.add_metric([slug, str(percentile)], values[min(len(values) - 1, len(values) * percentile // 100)])
    for pool_id, market, n in PoolOffer.objects.filter(pool_id__in=names).order_by().values_list("pool_id", "market").annotate(n=Sum("interruptions")):
        taken.add_metric([names[pool_id], market], n)
    yield from (launched, failed, cold, taken)


def _forecasts(pools: Sequence[Pool], now: datetime) -> Iterator[Family]:
    hour = GaugeMetricFamily(
        "comfyplane_forecast_workers", "Workers' worth of demand forecast for the busiest step of the next hour", labels=["pool", "percentile"]
    )
    peak = GaugeMetricFamily("comfyplane_forecast_day_peak_workers", "The same for the next 24 hours, at the 90th percentile", labels=["pool"])
    usable = GaugeMetricFamily("comfyplane_forecast_usable", "Whether the forecast is good enough to move the floor", labels=["pool"])
    sure = GaugeMetricFamily("comfyplane_forecast_sure", "Whether its error is small enough to warn by it", labels=["pool"])
    error = GaugeMetricFamily("comfyplane_forecast_wape_ratio", "Weighted absolute error of such forecasts in the backtest", labels=["pool"])
    age = GaugeMetricFamily("comfyplane_forecast_age_seconds", "Time since the forecast was made", labels=["pool"])
    latest = Forecast.objects.filter(pool=OuterRef("pk"), workflow__isnull=True).order_by("-made_at").values("id")[:1]
    ids = [id_ for id_ in Pool.objects.filter(id__in=[p.id for p in pools]).annotate(made=Subquery(latest)).values_list("made", flat=True) if id_]
    for row in Forecast.objects.filter(id__in=ids).select_related("pool").order_by("pool__slug"):
        slug = row.pool.slug
        near, day = _points(row, now, timedelta(hours=1)), _points(row, now, timedelta(hours=24))
        if near:
            hour.add_metric([slug, "50"], max(p[0] for p in near))
            hour.add_metric([slug, "90"], max(p[2] for p in near))
        if day:
            peak.add_metric([slug], max(p[2] for p in day))
        usable.add_metric([slug], row.usable)
        sure.add_metric([slug], forecast_alerts.sure(row))
        wape = (row.backtest or {}).get("wape")
        if isinstance(wape, int | float):
            error.add_metric([slug], wape)
        age.add_metric([slug], max(0.0, (now - row.made_at).total_seconds()))
    yield from (hour, peak, usable, sure, error, age)


def _money(pools: Sequence[Pool], now: datetime) -> Iterator[Family]:
    spent = CounterMetricFamily("comfyplane_worker_cost_usd", "What workers cost since midnight UTC, by what they did", labels=["pool", "bucket"])
    rate = GaugeMetricFamily("comfyplane_pool_cost_per_hour_usd", "What the workers there are cost an hour", labels=["pool"])
    budget = GaugeMetricFamily("comfyplane_pool_budget_usd", "Budget, by period", labels=["pool", "period"])
    left = GaugeMetricFamily(
        "comfyplane_pool_budget_left_usd", "Budget not spent yet, by period; of the hour: not taken by the workers there are", labels=["pool", "period"]
    )
    saved = GaugeMetricFamily(
        "comfyplane_savings_day_usd", "What sizing saved on the last day counted, against another way on the same arrivals", labels=["pool", "against"]
    )
    sums = {f"s_{bucket}": Sum(f"{bucket}_microusd") for bucket in WorkerHour.BUCKETS}
    rows: Any = WorkerHour.objects.filter(hour__gte=_midnight(now)).order_by().values("pool_id").annotate(**sums)
    today = {found["pool_id"]: {bucket: int(found[f"s_{bucket}"] or 0) for bucket in WorkerHour.BUCKETS} for found in rows}
    running = dict(Worker.objects.filter(state__in=Worker.LIVE).order_by().values_list("pool_id").annotate(n=Sum("price_per_hour_microusd")))
    for pool in pools:
        by_bucket: dict[str, int] = today.get(pool.id, {})
        for bucket in WorkerHour.BUCKETS:
            spent.add_metric([pool.slug, bucket], by_bucket.get(bucket, 0) / 1e6)
        now_per_hour = running.get(pool.id) or 0
        rate.add_metric([pool.slug], now_per_hour / 1e6)
        for period, limit, used in (
            ("hour", pool.budget_per_hour_microusd, now_per_hour),
            ("day", pool.budget_per_day_microusd, sum(by_bucket.values())),
        ):
            if limit is not None:
                budget.add_metric([pool.slug, period], limit / 1e6)
                left.add_metric([pool.slug, period], max(0, limit - used) / 1e6)
    newest = SavingsDay.objects.filter(pool=OuterRef("pool")).order_by("-day").values("day")[:1]
    for day in SavingsDay.objects.filter(pool_id__in=[p.id for p in pools]).annotate(newest=Subquery(newest)).filter(day=F("newest")).select_related("pool"):
        saved.add_metric([day.pool.slug, "seed_rule"], (day.seed_microusd - day.replayed_microusd) / 1e6)
        saved.add_metric([day.pool.slug, "static_peak"], (day.static_microusd - day.replayed_microusd) / 1e6)
    yield from (spent, rate, budget, left, saved)


def _emergencies(names: Mapping[int, str], now: datetime) -> Iterator[Family]:
    count = GaugeMetricFamily("comfyplane_emergency_measures", "Emergency measures in force, by kind", labels=["pool", "kind"])
    left = GaugeMetricFamily("comfyplane_emergency_left_seconds", "Time until the first measure of a kind ends by itself", labels=["pool", "kind"])
    open_ = EmergencyAction.objects.filter(ended_at__isnull=True, starts_at__lte=now, expires_at__gt=now, pool_id__in=names)
    rows = {
        (pool, kind): (n, first) for pool, kind, n, first in open_.order_by().values_list("pool_id", "kind").annotate(n=Count("id"), first=Min("expires_at"))
    }
    for pool_id, slug in names.items():
        for kind in ("raise", "fast", "pause_class", "shed"):
            n, first = rows.get((pool_id, kind), (0, None))
            count.add_metric([slug, kind], n)
            if first is not None:
                left.add_metric([slug, kind], (first - now).total_seconds())
    yield from (count, left)


def _points(row: Forecast, now: datetime, ahead: timedelta) -> list[Sequence[float]]:
    """The steps of a forecast that lie within the time ahead."""
    found: list[Sequence[float]] = []
    for step, point in enumerate(row.points):
        begins = row.starts_at + timedelta(seconds=row.step_s * step)
        if begins + timedelta(seconds=row.step_s) > now and begins < now + ahead and isinstance(point, list) and len(point) >= 3:
            found.append(point)
    return found


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def _number(value: Any, otherwise: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) else float(otherwise)
