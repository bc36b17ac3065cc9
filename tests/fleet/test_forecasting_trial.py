"""Whether a floor may be moved, by what floors drawn from past forecasts would have cost and spared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.forecasting import floor, make, series, trial
from fleet.forecasting.choice import Verdict
from fleet.forecasting.floor import Terms
from fleet.forecasting.trial import PastDay

TERMS = Terms(0, 2, 8, 60.0, 0.99, 90.0, 60.0)
NIGHTS = np.where(np.arange(24) < 7, 0.0, 40.0)
GOOD, POOR = Verdict(True), Verdict(False, "Its error is too large.")


def day(said: np.ndarray, came: np.ndarray | None = None, *, by: float = 0.3) -> PastDay:
    return PastDay(said * (1 - by), said, said * (1 + by), said if came is None else came)


def judged(verdict: Verdict, *days: PastDay, terms: Terms = TERMS, stands: bool = False) -> Verdict:
    return trial.judge(verdict, trial.tried(days, step_s=3600, terms=terms, sure=verdict.usable), terms, stands=stands)


def test_a_floor_that_kept_the_target_for_less_is_used_however_large_the_error() -> None:
    found = judged(POOR, day(NIGHTS), day(NIGHTS, NIGHTS * 1.2))
    assert found.usable
    assert found.why.startswith("On 2 past days its floor would have cost ")
    assert "instead of" in found.why


def test_a_floor_that_let_jobs_wait_is_not_used_however_small_the_error() -> None:
    surprised = day(np.zeros(24), np.where(np.arange(24) % 4 == 0, 1.0, 0.0))  # nothing was said, and single jobs came to no worker
    found = judged(GOOD, surprised, surprised)
    assert not found.usable
    assert found.why.startswith("On 2 past days its floor would have let ") and "The base stands" in found.why


@pytest.mark.parametrize("verdict", [GOOD, POOR])
def test_without_a_record_or_where_the_floor_can_only_rise_the_error_decides(verdict: Verdict) -> None:
    assert judged(verdict) == verdict
    assert judged(verdict, day(NIGHTS)) == verdict  # one day says too little
    assert judged(verdict, *[day(np.zeros(24))] * 3, *[day(NIGHTS, np.full(24, np.nan))] * 3) == verdict  # without a job there is nothing to be late
    assert judged(verdict, *[day(NIGHTS)] * 3, terms=Terms(2, 2, 8, 60.0, 0.99, 90.0, 60.0)) == verdict


@pytest.mark.parametrize("verdict", [GOOD, POOR])
def test_a_floor_that_keeps_the_target_but_saves_nothing_is_left_to_its_error(verdict: Verdict) -> None:
    busy = day(np.full(24, 300.0))
    assert judged(verdict, busy, busy) == verdict  # no floor is ever below the base


def test_a_day_on_which_nothing_came_costs_what_its_floor_would_have_cost() -> None:
    quiet = day(np.full(24, 900.0), np.zeros(24))
    with_it, without = (trial.tried(days, step_s=3600, terms=TERMS, sure=True) for days in ([day(NIGHTS), quiet], [day(NIGHTS)]))
    assert with_it.worker_hours - without.worker_hours > 24 * TERMS.base
    assert (with_it.days, without.days) == (2, 1)


def test_an_unsure_forecast_only_lowers_the_base() -> None:
    rush = day(np.where(np.arange(24) < 12, 0.0, 900.0))
    assert max(trial.allowed([0, 1, 5], TERMS, sure=True)) == 5
    assert trial.allowed([0, 1, 5], TERMS, sure=False) == [0, 1, 2]
    terms = Terms(0, 2, 40, 60.0, 0.99, 90.0, 60.0)
    sure, unsure = (trial.tried([rush], step_s=3600, terms=terms, sure=one) for one in (True, False))
    assert unsure.worker_hours < sure.worker_hours
    assert unsure.worker_hours <= unsure.base_worker_hours


def test_a_sure_forecast_may_be_as_late_as_its_plans_promised_and_an_unsure_one_may_not() -> None:
    """In hours of a few jobs a worker costs more than the job it saves is worth to the plan."""
    few = day(np.where(np.arange(24) % 12 < 11, 8.0, 0.0), by=0.0)
    terms = Terms(0, 4, 8, 60.0, 0.99, 90.0, 30.0)
    seen = trial.tried([few] * 5, step_s=3600, terms=terms, sure=True)
    assert seen.late_share > max(0.01, 1.1 * seen.base_late_share)
    assert judged(GOOD, *[few] * 5, terms=terms).usable
    assert not judged(POOR, *[few] * 5, terms=terms).usable


def test_floors_in_force_stay_where_new_ones_would_not_be_begun() -> None:
    record = trial.Trial(9, 0.0115, 100.0, 0.001, 200.0, 0.009)
    assert not trial.judge(POOR, record, TERMS, stands=False).usable
    assert trial.judge(POOR, record, TERMS, stands=True).usable


def test_hours_in_which_nobody_looked_count_for_neither_side() -> None:
    half = np.where(np.arange(24) < 12, np.nan, NIGHTS)
    whole, part = (trial.tried([day(NIGHTS, came)], step_s=3600, terms=TERMS, sure=True) for came in (NIGHTS, half))
    assert part.base_worker_hours < whole.base_worker_hours
    assert part.days == 1


@given(st.lists(st.floats(0, 400), min_size=1, max_size=24), st.integers(0, 7), st.sampled_from([600.0, 3600.0]))
def test_a_higher_floor_is_never_later_and_never_cheaper(jobs: list[float], low: int, step_s: float) -> None:
    came = np.array(jobs) * step_s / 3600
    late, hours = zip(*(floor.outcome(came, [size] * len(came), step_s=step_s, terms=TERMS) for size in (low, low + 1)), strict=True)
    assert 0 <= late[1] <= late[0] + 1e-9 <= came.sum() + 2e-9
    assert hours[0] <= hours[1] + 1e-9


def test_a_fine_series_is_tried_as_the_hours_it_is_taken_together_to() -> None:
    rng = np.random.default_rng(6)
    fine = rng.poisson(np.repeat(np.tile(NIGHTS, 5), 60) / 60.0).astype(float)
    whole = fine.reshape(-1, 60).sum(axis=1)
    one, other = (
        trial.tried(made.past, step_s=made.past_step_s, terms=TERMS, sure=True)
        for made in (make(series.of(fine, step_s=60.0), horizon=48 * 60), make(series.of(whole, step_s=3600.0), horizon=48))
    )
    assert one.days == other.days
    assert one.base_worker_hours == pytest.approx(other.base_worker_hours, rel=0.15)


def test_a_young_service_gets_its_floor_moved_once_two_forecasts_were_tried() -> None:
    rng = np.random.default_rng(5)
    said = []
    for hours in (24, 48, 71, 72, 96):
        values = rng.poisson(np.tile(NIGHTS, 4)[:hours]).astype(float)
        made = make(series.of(values, step_s=3600), horizon=48)
        said.append(judged(Verdict(made.usable, made.why), *made.past))
        assert not made.usable  # by its error alone nothing is, before a week
    assert [one.usable for one in said] == [False, False, False, True, True]
    assert said[3].why.startswith("On 2 past days")
    assert said[4].why.startswith("On 2 past days")
