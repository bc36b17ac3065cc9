"""Forecasts from plain series: what is chosen, how it is measured, and that no series breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from fleet.forecasting import make
from fleet.forecasting import series as series_of
from fleet.forecasting.backtest import coverage, measure, pinball, run
from fleet.forecasting.candidates import Analogues, LastWeek, WeekdaySlots, Yesterday, forecast_all, together
from fleet.forecasting.choice import ENOUGH_FOLDS, choose, judge
from fleet.forecasting.fitted import Boosting
from fleet.forecasting.making import walk
from fleet.forecasting.series import History

DAY = 24


def weekly(days: int, *, seed: int = 1, level: float = 40.0) -> np.ndarray:
    """Poisson counts an hour with a day's rhythm and quiet weekends."""
    hours = np.arange(days * DAY)
    mean = level * (1 + 0.8 * np.sin(2 * np.pi * hours / DAY)) * np.where(hours // DAY % 7 >= 5, 0.3, 1.0)
    return np.random.default_rng(seed).poisson(mean).astype(float)


ODD = {
    "nothing": [],
    "one value": [5.0],
    "five values": [1.0, 2.0, 3.0, 4.0, 5.0],
    "always the same": np.full(300, 7.0),
    "all zeros": np.zeros(300),
    "one spike": np.r_[np.zeros(200), 500.0, np.zeros(60)],
    "nothing known": np.full(200, np.nan),
    "a third unknown": np.where(np.random.default_rng(2).random(300) < 0.33, np.nan, weekly(13)[:300]),
    "infinite and negative": [1.0, np.inf, 2.0, -5.0, 3.0] * 40,
    "enormous": weekly(9) * 1e12,
    "tiny": weekly(9) * 1e-9,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("step_s", [3600.0, 40_000.0])
def test_any_series_gives_an_ordered_finite_forecast_of_the_asked_length(name: str, step_s: float) -> None:
    made = make(series_of.of(ODD[name], step_s=step_s), horizon=30)
    rows = np.stack([made.p10, made.p50, made.p90, made.upper])
    assert rows.shape == (4, 30)
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert (np.diff(rows, axis=0) >= -1e-9 * rows.max(initial=1.0)).all()
    assert made.report()["folds"] == made.folds


def test_the_same_series_gives_the_same_forecast() -> None:
    one, two = (make(series_of.of(weekly(12), step_s=3600), horizon=DAY) for _ in range(2))
    assert one.method == two.method
    assert np.array_equal(one.p50, two.p50)
    assert np.array_equal(one.upper, two.upper)


def test_too_little_history_and_no_demand_are_not_usable_and_say_why() -> None:
    short = make(series_of.of(weekly(5), step_s=3600), horizon=DAY)
    assert not short.usable
    assert "5.0 days of data of the 7" in short.why
    empty = make(series_of.of(np.zeros(20 * DAY), step_s=3600), horizon=DAY)
    assert not empty.usable
    assert "no demand" in empty.why


def test_a_regular_series_is_usable_and_its_range_holds_about_as_often_as_it_says() -> None:
    made = make(series_of.of(weekly(28), step_s=3600), horizon=DAY)
    assert made.usable
    assert made.why == ""
    assert made.wape < 0.3
    assert made.mase < 0.8
    assert 0.7 <= made.coverage <= 0.9


def test_noise_without_a_pattern_is_left_to_what_is_seen_now() -> None:
    noise = np.random.default_rng(3).exponential(50, 14 * DAY)
    made = make(series_of.of(noise, step_s=3600), horizon=DAY)
    assert not made.usable
    assert "40%" in made.why


def test_a_large_error_is_forgiven_only_when_the_range_holds_and_the_pattern_is_real() -> None:
    terms = {"days": 14, "wape": 0.5, "naive": 0.8, "covered": 0.8, "explained": 0.5, "demand": 10.0}
    assert judge(**terms).usable
    for change in (
        {"covered": 0.5},
        {"covered": 1.0},
        {"explained": 0.9},
        {"naive": 1.1},
        {"naive": float("nan")},
        {"wape": 0.9},
        {"days": 6.9},
        {"demand": 0.0},
        {"wape": float("nan")},
    ):
        verdict = judge(**{**terms, **change})
        assert not verdict.usable, change
        assert verdict.why


def test_yesterday_and_last_week_repeat_what_was() -> None:
    values = np.arange(8.0 * DAY)
    history = History(values, DAY)
    assert np.array_equal(Yesterday().fit(history).predict(DAY + 2), np.r_[values[-DAY:], values[-DAY : -DAY + 2]])
    assert np.array_equal(LastWeek().fit(history).predict(3), values[DAY : DAY + 3])


def test_the_weekday_slot_weighs_the_same_weekday_most_and_never_looks_ahead() -> None:
    values = np.full(14 * DAY, 4.0)
    values[7 * DAY : 8 * DAY] = 100.0  # the weekday that comes next
    said = WeekdaySlots().fit(History(values, DAY)).predict(2 * DAY)
    assert said[:DAY].min() > 20
    assert said[DAY:].max() < 12


def test_analogues_follow_the_past_day_that_looks_like_the_last_one() -> None:
    low, high = np.full(DAY, 5.0), np.full(DAY, 80.0)
    values = np.concatenate([low, high, low, low, high, low, low, high])  # after a high day a low one came, always
    assert Analogues().fit(History(values, DAY)).predict(DAY).max() == pytest.approx(5.0)


def test_boosting_learns_the_weekend_from_the_weekdays_of_the_series_own_clock() -> None:
    values = weekly(35, seed=4)[: 33 * DAY]  # ends on a Friday evening: a weekend day follows
    said = Boosting().fit(History(values, DAY, 0)).predict(DAY)
    assert said.mean() < 0.6 * values[-DAY:].mean()


def test_folds_know_nothing_of_what_came_after_them() -> None:
    values = weekly(12)
    other = values.copy()
    other[10 * DAY :] = 999.0
    for one, two in zip(run(series_of.of(values, step_s=3600), steps=DAY), run(series_of.of(other, step_s=3600), steps=DAY), strict=True):
        if one.origin <= 10 * DAY:
            for name in one.made:
                assert np.array_equal(one.made[name], two.made[name]), name


def test_the_walk_at_a_past_origin_is_not_changed_by_what_came_after_it() -> None:
    whole = series_of.of(weekly(13), step_s=3600)
    folds = run(whole, steps=DAY)
    until = [f for f in folds if f.origin <= 11 * DAY]
    at = until[-1]
    past = series_of.Series(whole.values[: at.origin], whole.step_s)
    ended = [f for f in until if f.origin + DAY <= at.origin]
    alone, _ = walk(past, ended, at.made, target_share=0.99)
    fresh = make(past, horizon=DAY)
    assert np.allclose(alone.p50, fresh.p50)
    assert np.allclose(alone.p90, fresh.p90)


def test_a_candidate_replaces_the_ensemble_only_after_enough_clearly_better_days() -> None:
    values = weekly(20, seed=5)
    series = series_of.of(values, step_s=3600)
    folds = list(run(series, steps=DAY))
    for fold in folds:  # somebody knew the future
        fold.made["Holt-Winters"] = fold.came.copy()
    made = folds[-1].made
    assert choose(folds, made, steps=DAY).name == "Holt-Winters"
    assert choose(folds[: ENOUGH_FOLDS - 1], made, steps=DAY).name == "ensemble"


def test_the_ensemble_is_the_weighted_mean_of_roots() -> None:
    said = together({"a": np.array([4.0]), "b": np.array([16.0])}, {"a": 3.0, "b": 1.0, "c": 9.0})
    assert said is not None
    assert said[0] == pytest.approx((0.75 * 2 + 0.25 * 4) ** 2)
    assert together({}, {"a": 1.0}) is None


def test_measures_agree_with_a_calculation_by_hand() -> None:
    said, came = np.array([10.0, 20.0, 5.0]), np.array([12.0, 16.0, np.nan])
    found = measure([(said, came, 4.0)])
    assert found.wape == pytest.approx(6 / 28)
    assert found.mase == pytest.approx(3 / 4)
    assert pinball(said, came, 0.9) == pytest.approx((0.9 * 2 + 0.1 * 4) / 2)
    assert coverage(said - 2, said + 2, came) == 0.5


def test_no_forecast_goes_far_above_everything_ever_seen() -> None:
    history = History(np.r_[np.zeros(5 * DAY), np.geomspace(1, 1e6, 2 * DAY)], DAY)
    for name, said in forecast_all(history, 3 * DAY).items():
        assert said.max() <= 3.0 * 1e6, name


def test_a_service_that_went_live_forgets_the_days_before() -> None:
    values = np.concatenate([weekly(5, level=2.0), weekly(14, level=60.0)])
    made = make(series_of.of(values, step_s=3600), horizon=DAY)
    assert made.level_changed is not None
    assert made.level_changed > 4
    assert made.history_days == pytest.approx(14, abs=1)


def test_weekends_and_single_spikes_change_no_level() -> None:
    spiky = weekly(14)
    spiky[100:104] *= 50
    for values in (weekly(14), spiky, np.full(400, 3.0)):
        assert series_of.settled(series_of.of(values, step_s=3600))[1] is None


def test_events_become_whole_steps_and_the_step_that_has_only_begun_is_left_out() -> None:
    made = series_of.from_events([10.0, 70.0, 71.0, 190.0, 245.0], step_s=60)
    assert made.values.tolist() == [1.0, 2.0, 0.0, 1.0]
    assert series_of.from_events([10.0, 70.0], step_s=60, until_s=180).values.tolist() == [1.0, 1.0, 0.0]
    assert len(series_of.from_events([], step_s=60).values) == 0


def test_gaps_are_filled_from_the_same_slot_of_a_near_day() -> None:
    values = np.tile(np.arange(DAY, dtype=float), 4)
    holed = values.copy()
    holed[30:40] = np.nan
    assert np.array_equal(series_of.filled(holed, DAY), values)


def test_fine_steps_are_taken_together_and_answered_in_the_steps_asked_for() -> None:
    minutes = np.repeat(weekly(8), 60)
    made = make(series_of.of(minutes, step_s=60), horizon=90)
    assert len(made.p50) == 90
    assert made.step_s == 60
    assert len(np.unique(made.p50)) <= 20


@pytest.mark.parametrize("horizon", [0, -1, 28 * DAY + 1])
def test_a_horizon_that_makes_no_sense_is_refused(horizon: int) -> None:
    with pytest.raises(ValueError, match="horizon"):
        make(series_of.of(weekly(3), step_s=3600), horizon=horizon)
