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


def judged(verdict: Verdict, *days: PastDay, terms: Terms = TERMS) -> Verdict:
    return trial.judge(verdict, trial.tried(days, step_s=3600, terms=terms), terms)


def test_a_floor_that_kept_the_target_for_less_is_used_however_large_the_error() -> None:
    found = judged(POOR, day(NIGHTS), day(NIGHTS, NIGHTS * 1.2))
    assert found.usable
    assert found.why.startswith("On 2 past days its floor would have cost ")
    assert "instead of" in found.why


def test_a_floor_that_let_jobs_wait_is_not_used_however_small_the_error() -> None:
    surprised = day(np.zeros(24), np.where(np.arange(24) % 4 == 0, 1.0, 0.0))  # nothing was said, and single jobs came to no worker
    found = judged(GOOD, surprised)
    assert not found.usable
    assert "wait too long: the base stands" in found.why


@pytest.mark.parametrize("verdict", [GOOD, POOR])
def test_without_a_record_or_where_the_floor_can_only_rise_the_error_decides(verdict: Verdict) -> None:
    assert judged(verdict) == verdict
    assert judged(verdict, day(np.zeros(24)), day(NIGHTS, np.full(24, np.nan))) == verdict  # days without a job say nothing
    assert judged(verdict, day(NIGHTS), terms=Terms(2, 2, 8, 60.0, 0.99, 90.0, 60.0)) == verdict


@pytest.mark.parametrize("verdict", [GOOD, POOR])
def test_a_floor_that_keeps_the_target_but_saves_nothing_is_left_to_its_error(verdict: Verdict) -> None:
    assert judged(verdict, day(np.full(24, 300.0))) == verdict  # busy all day: no floor is ever below the base


def test_hours_in_which_nobody_looked_count_for_neither_side() -> None:
    half = np.where(np.arange(24) < 12, np.nan, NIGHTS)
    whole, part = (trial.tried([day(NIGHTS, came)], step_s=3600, terms=TERMS) for came in (NIGHTS, half))
    assert part.base_worker_hours < whole.base_worker_hours
    assert part.days == 1


@given(st.lists(st.floats(0, 400), min_size=1, max_size=24), st.integers(0, 7), st.sampled_from([600.0, 3600.0]))
def test_a_higher_floor_is_never_later_and_never_cheaper(jobs: list[float], low: int, step_s: float) -> None:
    came = np.array(jobs) * step_s / 3600
    late, hours = zip(*(floor.outcome(came, [size] * len(came), step_s=step_s, terms=TERMS) for size in (low, low + 1)), strict=True)
    assert 0 <= late[1] <= late[0] + 1e-9 <= came.sum() + 2e-9
    assert hours[0] <= hours[1] + 1e-9


def test_a_young_service_gets_its_floor_moved_once_one_forecast_was_tried() -> None:
    rng = np.random.default_rng(5)
    said = []
    for hours in (24, 47, 48, 72):
        values = rng.poisson(np.tile(NIGHTS, 3)[:hours]).astype(float)
        made = make(series.of(values, step_s=3600), horizon=48)
        said.append(judged(Verdict(made.usable, made.why), *made.past))
        assert not made.usable  # by its error alone nothing is, before a week
    assert [one.usable for one in said] == [False, False, True, True]
    assert said[3].why.startswith("On 2 past days")
