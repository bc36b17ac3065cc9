"""Forecasts of pools' demand: made every hour from what came, kept to be measured against what comes, and read as a floor.

Making one takes a second or two and belongs in a task; reading one is an indexed row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from fleet import forecast_alerts, forecast_series, job_times
from fleet.forecast_alerts import Alert
from fleet.forecast_series import STEP_S, hour_of
from fleet.models import Forecast, PlannedDemand, Pool

HORIZON = 168
"""Hours: the coming week."""
STALE = timedelta(hours=26)
KEEP_HOURLY = timedelta(days=8)
KEEP = timedelta(days=60)
ERROR_DAYS = 7
LEVEL = (0.5, 2.0)
"""How far the last hour may correct the next ones; the correction halves from hour to hour."""
LOOK = 2
"""Hours the correction is applied to."""


def refresh(pool: Pool, *, now: datetime) -> Forecast:
    """Make this hour's forecasts of the pool and its busy workflows, unless they were made, and forget old ones. Returns the pool's."""
    begun = hour_of(now)
    made = Forecast.objects.filter(pool=pool, workflow__isnull=True, starts_at=begun, made_at__lte=now).order_by("made_at").first()
    if made is not None:
        return made
    before = latest(pool, now=now)
    rows = [_make(pool, None, before=before, now=now)]
    rows[0].backtest["published"] = published_error(pool, now=now).plain()
    rows += [_make(pool, workflow, before=None, now=now) for workflow in forecast_series.busiest(pool, now=now)]
    with transaction.atomic():
        Pool.objects.select_for_update().get(id=pool.id)
        made = Forecast.objects.filter(pool=pool, workflow__isnull=True, starts_at=begun).order_by("made_at").first()
        if made is not None:  # another task was quicker
            return made
        Forecast.objects.bulk_create(rows)
        prune(pool, now=now)
    return rows[0]


def latest(pool: Pool, *, workflow: UUID | None = None, now: datetime) -> Forecast | None:
    """The newest forecast of the pool, or of one of its workflows; None when there is none yet."""
    rows = Forecast.objects.filter(pool=pool, made_at__lte=now)
    rows = rows.filter(workflow__isnull=True) if workflow is None else rows.filter(workflow_id=workflow)
    return rows.order_by("-made_at").first()


@dataclass(frozen=True, slots=True)
class Floor:
    """Fewest workers to keep now by forecast and calendar, in a sentence why, and whether the forecast had a say."""

    workers: int
    why: str
    usable: bool


def floor(pool: Pool, *, now: datetime) -> Floor:
    """The floor in force. Without a forecast that is good and fresh enough it is the pool's base; announced events count either way."""
    if not pool.forecast_floor:
        return _with_events(pool, Floor(pool.base, "", False), now=now)
    row = latest(pool, now=now)
    if row is None:
        found = Floor(pool.base, "There is no forecast yet.", False)
    elif now - row.made_at > STALE:
        found = Floor(pool.base, f"The last forecast is from {row.made_at:%d %b %H:%M} UTC: too old.", False)
    elif not row.usable:
        found = Floor(pool.base, row.why or "The forecast is not good enough.", False)
    else:
        found = _by_plan(pool, row, now=now)
    return _with_events(pool, found, now=now)


def alerts(pool: Pool, *, now: datetime) -> list[Alert]:
    """When the pool's maximum is reached by its newest forecast, unless that is too old or not good enough."""
    row = latest(pool, now=now)
    return forecast_alerts.of(pool, row, now=now) if row is not None and now - row.made_at <= STALE else []


@dataclass(frozen=True, slots=True)
class Published:
    """How wrong the forecasts of the last days turned out: error over demand, by how far ahead. None where nothing can be compared yet."""

    half_hour: float | None
    two_hours: float | None
    day: float | None
    covered: float | None
    """Share of the hours that came inside the 80 % range, a day ahead."""
    hours: int
    words: str

    def plain(self) -> dict[str, Any]:
        """What is kept with the next forecast, in `Forecast.backtest["published"]`, for pages that must not count it again."""
        named = {"half_hour": self.half_hour, "two_hours": self.two_hours, "day": self.day, "covered": self.covered}
        return {**{name: None if value is None else round(value, 6) for name, value in named.items()}, "hours": self.hours, "days": ERROR_DAYS}


def published_error(pool: Pool, *, now: datetime) -> Published:
    """From the forecasts as they were made and the hours that have passed since, over the last 7 days."""
    end = hour_of(now)
    start = end - timedelta(days=ERROR_DAYS)
    came = forecast_series.jobs_by_hour(pool, start=start, end=end)
    wrong = {1: 0.0, 3: 0.0, 24: 0.0}
    total = dict.fromkeys(wrong, 0.0)
    compared = dict.fromkeys(wrong, 0)
    inside = 0
    rows = Forecast.objects.filter(pool=pool, workflow__isnull=True, starts_at__gte=start - timedelta(hours=24), starts_at__lt=end)
    seen: set[datetime] = set()
    for starts, step_s, arrivals in rows.order_by("made_at").values_list("starts_at", "step_s", "arrivals").iterator():
        if step_s != STEP_S or starts in seen:
            continue
        seen.add(starts)
        for ahead in wrong:
            at = starts.astimezone(UTC) + timedelta(hours=ahead - 1)
            if not start <= at < end or len(arrivals) < ahead:
                continue
            point, jobs = arrivals[ahead - 1], came.get(at, 0)
            wrong[ahead] += abs(point[0] - jobs)
            total[ahead] += jobs
            compared[ahead] += 1
            if ahead == 24 and point[1] - 1e-6 <= jobs <= point[2] + 1e-6:
                inside += 1
    share = {ahead: wrong[ahead] / total[ahead] if total[ahead] > 0 else None for ahead in wrong}
    near, later = share[1], share[3]
    words = (
        f"Last {ERROR_DAYS} d: {near:.1%} at 30 min, {later:.1%} at 2 h" if near is not None and later is not None else "No past forecast can be compared yet"
    )
    return Published(near, later, share[24], inside / compared[24] if compared[24] else None, compared[1], words)


def prune(pool: Pool, *, now: datetime) -> int:
    """Past eight days keep the first forecast of a day, past sixty none; of workflows two days, then none. Returns rows deleted."""
    gone = Forecast.objects.filter(pool=pool, made_at__lt=now - KEEP).delete()[0]
    gone += Forecast.objects.filter(pool=pool, workflow__isnull=False, made_at__lt=now - timedelta(days=2)).delete()[0]
    kept: set[Any] = set()
    extra = []
    for id_, made_at in (
        Forecast.objects.filter(pool=pool, workflow__isnull=True, made_at__lt=now - KEEP_HOURLY).order_by("made_at").values_list("id", "made_at")
    ):
        day = made_at.astimezone(UTC).date()
        if day in kept:
            extra.append(id_)
        kept.add(day)
    return gone + (Forecast.objects.filter(id__in=extra).delete()[0] if extra else 0)


def _make(pool: Pool, workflow: UUID | None, *, before: Forecast | None, now: datetime) -> Forecast:
    """A row, not saved. Work is jobs times what a job takes lately."""
    from fleet.forecasting import floor as floors
    from fleet.forecasting import make, reach, trial
    from fleet.forecasting.choice import Verdict

    hours = forecast_series.of(pool, workflow_id=workflow, now=now)
    made = make(hours.series, horizon=HORIZON, target_share=pool.target_share)
    times = job_times.of_pool(pool, now=now)
    job_s = hours.job_s or times.all.mean_s
    worth = job_s / STEP_S
    arrivals = [[_short(v) for v in point] for point in zip(made.p50, made.p10, made.p90, strict=True)]
    points = [[_short(v * worth) for v in point] for point in zip(made.p50, made.p10, made.p90, made.upper, strict=True)]
    plan: dict[str, Any] = {}
    verdict = Verdict(made.usable, made.why)
    if workflow is None:
        level = _level(hours, before, now=now)
        least = pool.base if pool.forecast_base is None else min(pool.forecast_base, pool.base)
        terms = floors.Terms(least, pool.base, pool.max, pool.target_s, pool.target_share, times.cold.p90_s, job_s)
        corrected = [[v * level ** (0.5**i) if i < LOOK else v for v in (p10, p50, p90)] for i, (p50, p10, p90) in enumerate(arrivals)]
        drawn = floors.plan(corrected, step_s=STEP_S, terms=terms)
        record = trial.tried(made.past, step_s=made.past_step_s, terms=terms, sure=made.usable)
        verdict = trial.judge(verdict, record, terms, stands=before is not None and before.usable)
        grown = reach.growth(hours.series.values, per_day=hours.series.per_day)
        plan = {
            "floors": trial.allowed(drawn.floors, terms, sure=made.usable),
            "late_share": _short(drawn.late_share),
            "worker_hours": _short(drawn.worker_hours),
            "level": _short(level),
            "job_s": _short(job_s),
            "cold_start_s": times.cold.p90_s,
            "growth": {"weekly": grown.weekly, "low": grown.low, "high": grown.high, "weeks": grown.weeks} if grown else None,
        }
    return Forecast(
        pool=pool,
        workflow_id=workflow,
        made_at=now,
        starts_at=hour_of(now),
        step_s=STEP_S,
        method=made.method,
        history_days=made.history_days,
        points=points,
        arrivals=arrivals,
        backtest={**made.report(), "chosen": made.chosen, "sure": made.usable},
        plan=plan,
        usable=verdict.usable,
        why=verdict.why[:300],
    )


def _level(hours: forecast_series.Hours, before: Forecast | None, *, now: datetime) -> float:
    """By how many times the last whole hour exceeded what was forecast of it, within bounds. One more job on either side, so that nights say little."""
    if before is None or not len(hours.series.values):
        return 1.0
    at = round((hour_of(now) - before.starts_at).total_seconds() / STEP_S) - 1
    last = float(hours.series.values[-1])
    if not 0 <= at < len(before.arrivals) or not math.isfinite(last):
        return 1.0
    return min(LEVEL[1], max(LEVEL[0], (last + 1) / (float(before.arrivals[at][0]) + 1)))


def _by_plan(pool: Pool, row: Forecast, *, now: datetime) -> Floor:
    floors = row.plan.get("floors") if isinstance(row.plan, dict) else None
    into = (now - row.starts_at).total_seconds()
    if not floors or not 0 <= into < len(floors) * row.step_s:
        return Floor(pool.base, "The forecast ends before now.", False)
    step = int(into // row.step_s)
    soon = min(len(floors) - 1, int((into + float(row.plan.get("cold_start_s") or 0.0)) // row.step_s))
    least = pool.base if pool.forecast_base is None else min(pool.forecast_base, pool.base)
    workers = min(pool.max, max(least, *(int(v) for v in floors[step : soon + 1])))
    p50, p10, p90 = row.arrivals[soon][:3]
    when = row.starts_at + timedelta(seconds=soon * row.step_s)
    said = f"About {p50:,.0f} jobs ({p10:,.0f} to {p90:,.0f}) are expected from {when:%H:%M} to {when + timedelta(seconds=row.step_s):%H:%M} UTC"
    return Floor(workers, f"{said}: the floor is {workers:,}.", True)


def _with_events(pool: Pool, found: Floor, *, now: datetime) -> Floor:
    """Announced events move the floor a cold start before they begin."""
    lead = timedelta(seconds=max(60.0, job_times.of_pool(pool, now=now).cold.p90_s))
    events = PlannedDemand.objects.filter(pool=pool, kind=PlannedDemand.Kind.EVENT, canceled_at__isnull=True, ends_at__gt=now, starts_at__lte=now + lead)
    for event in events.order_by("starts_at")[:20]:
        wish = max(event.workers, math.ceil(found.workers * event.factor) if event.factor > 1 else 0)
        if wish > found.workers:
            name = event.name[:60] or "An announced event"
            found = Floor(min(pool.max, wish), f"{name} (until {event.ends_at:%d %b %H:%M} UTC) asks for {wish:,}.", found.usable)
    return found


def _short(value: float) -> float:
    """Four digits are plenty, and keep the rows small."""
    return float(f"{float(value):.4g}")
