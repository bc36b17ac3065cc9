"""Taking a series apart: the same figures as statsmodels' STL and MSTL, and what holds of any series."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.forecasting import seasons

STEPS = np.arange(45)
ROW = np.round(10 + 0.1 * STEPS + 4 * np.sin(2 * np.pi * STEPS / 8) + ((STEPS * 37) % 11 - 5) / 3.0, 4)


def test_the_season_is_that_of_statsmodels() -> None:
    # statsmodels 0.15.0: STL(ROW, period=8, seasonal=7).fit().seasonal
    said = [-0.242451, 2.753094, -2.501032, 0.398264, -0.658857, -2.833074, -1.799045]
    assert seasons.stl(ROW, 8)[[0, 1, 7, 8, 20, 37, 44]] == pytest.approx(said, abs=2e-6)


def test_several_seasons_are_those_of_statsmodels() -> None:
    # statsmodels 0.15.0: MSTL(ROW, periods=(4, 20), iterate=1).fit().seasonal
    said = np.array([[-0.783356, -3.18157], [-0.709147, -1.141495], [-0.134863, -1.018655], [-1.844046, -1.296118]])
    found, rest = seasons.several(ROW, (4, 20))
    assert np.stack(found, axis=1)[[0, 3, 22, 44]] == pytest.approx(said, abs=2e-6)
    assert sum(found) + rest == pytest.approx(ROW)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.data())
def test_a_season_on_a_straight_line_is_found_whole(period: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(2 * period + 1, 8 * period))
    pattern = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=period, max_size=period)))
    pattern -= pattern.mean()
    slope = data.draw(st.floats(-2, 2))
    row = np.resize(pattern, n) + slope * np.arange(n)
    assert seasons.stl(row, period) == pytest.approx(np.resize(pattern, n), abs=1e-4 + 0.6 * abs(slope))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 80), st.integers(1, 60), st.floats(-5, 5), st.floats(-100, 100))
def test_smoothing_leaves_a_straight_line_as_it_is(n: int, half: int, slope: float, begin: float) -> None:
    line = begin + slope * np.arange(n)
    assert seasons.smooth(line, 2 * half + 1) == pytest.approx(line, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(0, 1000))
def test_taking_apart_is_linear_and_blind_to_what_is_scaled(period: int, seed: int) -> None:
    one, two = np.random.default_rng(seed).normal(size=(2, 5 * period + 3))
    both = seasons.stl(one + 3 * two, period)
    assert both == pytest.approx(seasons.stl(one, period) + 3 * seasons.stl(two, period), abs=1e-9)
