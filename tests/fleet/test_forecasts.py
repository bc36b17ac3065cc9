"""Forecasts of pools: made from the minutes written down, kept to be judged, read as a floor and as warnings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from factories import make_pool, make_runnable

from builds.models import Workflow
from fleet import floors, forecast_alerts, forecast_series, forecasts, tasks
from fleet.models import CapacityMinute, DemandMinute, Forecast, PlannedDemand, Pool

NOW = datetime(2026, 11, 18, 14, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rhythm(at: datetime, *, level: float = 60.0) -> int:
    """Busy by day, next to nothing by night, half at weekends."""
    if not 7 <= at.hour < 20:
        return 0
    return round(level * (1 + np.sin((at.hour - 7) / 13 * np.pi)) * (0.5 if at.weekday() >= 5 else 1.0)) + at.day % 3


def write(pool: Pool, workflow: Workflow, *, days: int, now: datetime = NOW, level: float = 60.0, job_s: float = 60.0) -> None:
    """Whole hours of demand up to `now`, each in one minute."""
    rows = []
    for back in range(1, days * 24 + 1):
        at = forecast_series.hour_of(now) - back * HOUR
        if jobs := rhythm(at, level=level):
            rows.append(DemandMinute(pool=pool, workflow=workflow, minute=at + timedelta(minutes=7), arrivals=jobs, work_s=jobs * job_s))
    DemandMinute.objects.bulk_create(rows, ignore_conflicts=True)


def keep(pool: Pool, *, now: datetime = NOW, **fields: Any) -> Forecast:
    """A forecast that is simply there."""
    hours = 168
    values: dict[str, Any] = {
        "made_at": now, "starts_at": forecast_series.hour_of(now), "step_s": 3600, "method": "ensemble", "history_days": 30.0, "usable": True,
        "points": [[1.0, 0.5, 2.0, 3.0]] * hours, "arrivals": [[60.0, 30.0, 120.0]] * hours, "backtest": {},
        "plan": {"floors": [1] * hours, "job_s": 60.0, "cold_start_s": 90.0, "growth": None},
    }  # fmt: skip
    return Forecast.objects.create(pool=pool, **(values | fields))


@pytest.fixture
def pool(db: None) -> Pool:
    return make_pool(now=NOW, base=2, max=8, forecast_base=0)


@pytest.fixture
def workflow(pool: Pool) -> Workflow:
    return make_runnable(now=NOW, pool=pool)


def test_a_pool_with_weeks_of_demand_gets_a_usable_forecast_of_the_coming_week(pool: Pool, workflow: Workflow) -> None:
    write(pool, workflow, days=21)
    made = forecasts.refresh(pool, now=NOW)
    assert made.usable, made.why
    assert made.starts_at == forecast_series.hour_of(NOW)
    assert len(made.points) == len(made.arrivals) == len(made.plan["floors"]) == forecasts.HORIZON
    tomorrow_noon = 22
    assert made.arrivals[tomorrow_noon][0] == pytest.approx(rhythm(made.starts_at + tomorrow_noon * HOUR), rel=0.25)
    assert made.points[tomorrow_noon][0] == pytest.approx(made.arrivals[tomorrow_noon][0] * 60 / 3600, rel=0.01)
    assert made.backtest["wape"] < 0.2
    assert made.backtest["by_method"]
    assert set(made.plan["floors"][10:14]) == {0}  # 00:00 to 04:00


def test_a_young_pool_may_go_below_its_base_but_nobody_is_warned_by_its_forecast(pool: Pool, workflow: Workflow) -> None:
    write(pool, workflow, days=4)
    made = forecasts.refresh(pool, now=NOW)
    assert made.usable
    assert "past days its floor would have cost" in made.why
    assert set(made.plan["floors"][10:14]) == {0}
    assert made.backtest["sure"] is False and not forecast_alerts.sure(made)
    assert max(made.plan["floors"]) <= pool.base, "by such a forecast the base is only lowered"
    Pool.objects.filter(id=pool.id).update(max=2)
    assert forecasts.alerts(Pool.objects.get(id=pool.id), now=NOW) == []
    pool.forecast_base = None  # it may only raise the floor: the error decides
    made.delete()
    assert not forecasts.refresh(pool, now=NOW).usable


def test_making_it_twice_in_an_hour_makes_it_once(pool: Pool, workflow: Workflow) -> None:
    write(pool, workflow, days=8)
    first = forecasts.refresh(pool, now=NOW)
    assert forecasts.refresh(pool, now=NOW + timedelta(minutes=5)).id == first.id
    assert Forecast.objects.filter(pool=pool, workflow__isnull=True).count() == 1
    assert forecasts.refresh(pool, now=NOW + HOUR).id != first.id


def test_a_pool_without_history_gets_a_forecast_that_says_it_is_none(pool: Pool) -> None:
    made = forecasts.refresh(pool, now=NOW)
    assert not made.usable
    assert made.why
    assert forecasts.floor(pool, now=NOW).workers == 2
    assert forecasts.alerts(pool, now=NOW) == []
    assert forecasts.published_error(pool, now=NOW).half_hour is None


def test_each_busy_workflow_of_several_gets_its_own_forecast(pool: Pool, workflow: Workflow) -> None:
    other, rare = make_runnable(now=NOW, pool=pool), make_runnable(now=NOW, pool=pool)
    write(pool, workflow, days=9)
    write(pool, other, days=9, level=30)
    DemandMinute.objects.create(pool=pool, workflow=rare, minute=NOW - timedelta(days=1), arrivals=3, work_s=9)
    forecasts.refresh(pool, now=NOW)
    assert set(Forecast.objects.filter(workflow__isnull=False).values_list("workflow_id", flat=True)) == {workflow.id, other.id}
    own = forecasts.latest(pool, workflow=other.id, now=NOW)
    assert own is not None
    assert own.points


def test_an_hour_in_which_nobody_looked_is_unknown_and_one_without_jobs_is_zero(pool: Pool, workflow: Workflow) -> None:
    start = forecast_series.hour_of(NOW) - 4 * HOUR
    for hours, jobs in ((0, 5), (3, 7)):
        DemandMinute.objects.create(pool=pool, workflow=workflow, minute=start + hours * HOUR, arrivals=jobs, work_s=jobs * 10)
    for hours in (0, 1, 3):
        CapacityMinute.objects.create(pool=pool, minute=start + hours * HOUR + timedelta(minutes=3))
    values = forecast_series.of(pool, now=NOW).series.values
    assert values[[0, 1, 3]].tolist() == [5, 0, 7]
    assert np.isnan(values[2])


def test_the_floor_follows_the_plan_from_a_cold_start_before_the_hour(pool: Pool) -> None:
    keep(pool, plan={"floors": [0, 3, 1] + [0] * 165, "job_s": 60.0, "cold_start_s": 90.0})
    hour = forecast_series.hour_of(NOW)
    assert forecasts.floor(pool, now=NOW).workers == 0
    assert forecasts.floor(pool, now=hour + timedelta(minutes=58, seconds=40)).workers == 3
    found = forecasts.floor(pool, now=hour + timedelta(minutes=80))
    assert (found.workers, found.usable) == (3, True)
    assert "15:00 to 16:00" in found.why
    assert floors.of(pool, now=hour + timedelta(minutes=80)).base == 3


def test_the_floor_stays_between_forecast_base_and_maximum_as_they_are_now(pool: Pool) -> None:
    keep(pool, plan={"floors": [0] * 24 + [50] * 24, "cold_start_s": 0})
    assert forecasts.floor(pool, now=NOW).workers == 0
    pool.forecast_base = 1
    assert forecasts.floor(pool, now=NOW).workers == 1
    pool.forecast_base = None  # it may raise the floor, not lower it
    assert forecasts.floor(pool, now=NOW).workers == 2
    assert forecasts.floor(pool, now=NOW + timedelta(hours=24)).workers == 8


@pytest.mark.parametrize(
    ("fields", "later", "said"),
    [
        ({"usable": False, "why": "It has 3.0 days of data of the 7 it needs."}, timedelta(), "3.0 days"),
        ({}, timedelta(hours=27), "too old"),
        ({"plan": {}}, timedelta(), "ends before now"),
        ({"plan": {"floors": [0]}}, timedelta(hours=2), "ends before now"),
    ],
)
def test_without_a_good_and_fresh_forecast_the_base_stands_and_says_why(pool: Pool, fields: dict[str, Any], later: timedelta, said: str) -> None:
    keep(pool, **({"plan": {"floors": [0] * 168, "cold_start_s": 0}} | fields))
    found = forecasts.floor(pool, now=NOW + later)
    assert (found.workers, found.usable) == (2, False)
    assert said in found.why


def test_a_pool_that_does_not_want_its_floor_moved_keeps_its_base(pool: Pool) -> None:
    pool.forecast_floor = False
    keep(pool)
    assert forecasts.floor(pool, now=NOW) == forecasts.Floor(2, "", False)


def test_reading_the_floor_is_two_queries(pool: Pool, django_assert_max_num_queries: Any) -> None:
    keep(pool)
    forecasts.floor(pool, now=NOW)  # job times are cached
    with django_assert_max_num_queries(2):
        forecasts.floor(pool, now=NOW)


def test_an_announced_event_raises_the_floor_while_it_lasts(pool: Pool) -> None:
    keep(pool, plan={"floors": [2] * 168, "cold_start_s": 90.0})
    event = PlannedDemand.objects.create(
        pool=pool, kind="event", name="Launch", starts_at=NOW + HOUR, ends_at=NOW + 3 * HOUR, workers=6, created_by="test", created_at=NOW
    )
    assert forecasts.floor(pool, now=NOW).workers == 2
    during = forecasts.floor(pool, now=NOW + HOUR)
    assert during.workers == 6
    assert "Launch" in during.why
    assert forecasts.floor(pool, now=NOW + 3 * HOUR).workers == 2
    PlannedDemand.objects.filter(id=event.id).update(workers=0, factor=2.5)
    assert forecasts.floor(pool, now=NOW + HOUR).workers == 5
    PlannedDemand.objects.filter(id=event.id).update(canceled_at=NOW)
    assert forecasts.floor(pool, now=NOW + HOUR).workers == 2


def test_the_last_hour_corrects_the_next_within_bounds(pool: Pool, workflow: Workflow) -> None:
    write(pool, workflow, days=10)
    forecasts.refresh(pool, now=NOW)
    DemandMinute.objects.create(pool=pool, workflow=workflow, minute=NOW + timedelta(minutes=10), arrivals=5000, work_s=5000)
    assert forecasts.refresh(pool, now=NOW + HOUR).plan["level"] == 2.0


def test_the_published_error_compares_what_was_said_with_what_came(pool: Pool, workflow: Workflow) -> None:
    end = forecast_series.hour_of(NOW)
    for back in range(40, 0, -1):
        at = end - back * HOUR
        DemandMinute.objects.create(pool=pool, workflow=workflow, minute=at, arrivals=100, work_s=100)
        keep(pool, now=at + timedelta(minutes=4), arrivals=[[110.0, 90.0, 130.0], [0.0] * 3, [80.0, 70.0, 95.0]] + [[100.0, 99.0, 101.0]] * 30)
    found = forecasts.published_error(pool, now=NOW)
    assert found.half_hour == pytest.approx(0.10)
    assert found.two_hours == pytest.approx(0.20)
    assert found.day == pytest.approx(0.0)
    assert found.covered == 1.0
    assert found.words == "Last 7 d: 10.0% at 30 min, 20.0% at 2 h"
    kept = forecasts.refresh(pool, now=NOW + HOUR).backtest["published"]  # for the pool's page
    assert kept["half_hour"] == pytest.approx(0.10, abs=0.01)
    assert (kept["days"], kept["hours"]) == (7, found.hours)


def test_old_forecasts_are_thinned_to_one_a_day_and_then_forgotten(pool: Pool, workflow: Workflow) -> None:
    for hours in range(0, 75 * 24, 6):
        keep(pool, now=NOW - timedelta(hours=hours))
    keep(pool, now=NOW - timedelta(days=3), workflow=workflow)
    forecasts.prune(pool, now=NOW)
    assert not Forecast.objects.filter(made_at__lt=NOW - forecasts.KEEP).exists()
    assert not Forecast.objects.filter(workflow__isnull=False).exists()
    old = Forecast.objects.filter(made_at__lt=NOW - forecasts.KEEP_HOURLY).values_list("made_at", flat=True)
    assert len(old) == len({at.date() for at in old}) >= 51
    assert Forecast.objects.filter(made_at__gte=NOW - forecasts.KEEP_HOURLY).count() == 8 * 4 + 1


def test_an_alert_says_when_the_maximum_is_reached_with_workers_and_money(pool: Pool) -> None:
    points = [[1.0, 0.8, 1.2, 1.5]] * 168
    points[25] = [20.0, 15.0, 26.0, 30.0]  # Thursday 15:00
    points[26] = [12.0, 11.0, 13.0, 14.0]
    keep(pool, points=points)
    alert, *rest = forecasts.alerts(pool, now=NOW)
    assert rest == []
    assert alert.kind == "maximum"
    assert alert.at == datetime(2026, 11, 19, 15, 0, tzinfo=UTC)
    assert 8 < 15 < alert.low < alert.raise_to < alert.high
    assert alert.message.startswith(f"Maximum reached on Thursday 15:00 ({alert.low}–{alert.high} workers), raising it to {alert.raise_to} costs about $")
    hours = alert.cost_microusd / pool.price_per_hour_microusd
    assert 15 <= hours <= 30  # 12 to 15 workers more at the peak, some in the hour after it


def test_an_alert_of_growth_names_the_week_and_its_range(pool: Pool) -> None:
    growth = {"weekly": 0.10, "low": 0.05, "high": 0.15, "weeks": 8}
    keep(pool, points=[[3.0, 2.5, 3.5, 4.0]] * 168, plan={"floors": [1] * 168, "job_s": 60.0, "growth": growth})
    (alert,) = forecasts.alerts(pool, now=NOW)
    assert alert.kind == "growth"
    assert "grew 10% a week over 8 weeks" in alert.message
    assert NOW + timedelta(weeks=3) < alert.at < NOW + timedelta(weeks=12)


@pytest.mark.parametrize("fields", [{"usable": False}, {"points": []}, {"points": None or [[]] * 5}, {"plan": {"growth": "soon"}}])
def test_a_forecast_that_cannot_be_used_warns_of_nothing(pool: Pool, fields: dict[str, Any]) -> None:
    keep(pool, **fields)
    assert forecasts.alerts(pool, now=NOW) == []
    assert forecasts.alerts(pool, now=NOW + timedelta(days=3)) == []


def test_the_hourly_task_forecasts_every_pool_though_one_of_them_fails(pool: Pool, workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_pool(now=NOW, slug="aaa-broken")
    real = forecasts.refresh

    def refresh(which: Pool, *, now: datetime) -> Forecast:
        if which.id == other.id:
            raise ZeroDivisionError
        return real(which, now=now)

    monkeypatch.setattr(forecasts, "refresh", refresh)
    done = tasks.forecast()
    assert done["aaa-broken"] == "failed: ZeroDivisionError"
    assert Forecast.objects.filter(pool=pool).count() == 1
    assert tasks.SCHEDULES["forecast"]["func"] == "fleet.tasks.forecast"
