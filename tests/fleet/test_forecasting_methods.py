"""The single ways to forecast, against calculations by hand and step by step, and what is no longer asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.forecasting import backtest, candidates, making
from fleet.forecasting import series as series_of
from fleet.forecasting.backtest import Fold, behind
from fleet.forecasting.candidates import CANDIDATES, CORE, DEAR, Analogues, Boosting, HoltWinters, WeekdayMedian, WeekdaySlots, WeekLevel
from fleet.forecasting.series import History

DAY = 24
counts = st.lists(st.integers(0, 400), min_size=3 * 6, max_size=24 * 6)


def holt_winters(root: np.ndarray, day: int, level: float, season: float) -> tuple[float, np.ndarray, list[float]]:
    """ETS(A, N, A) one step after the other: the last level and seasons, and how far each day's steps were off from its eve."""
    first = root[: 2 * day].reshape(2, day).mean(axis=0)
    at, seasons = float(first.mean()), first - first.mean()
    off = []
    for begin in range(0, len(root), day):
        if begin >= 2 * day:
            off.append(float(np.abs(root[begin : begin + day] - at - seasons).mean()))
        for slot in range(day):
            error = root[begin + slot] - at - seasons[slot]
            at += level * error
            seasons[slot] += season * error
    return at, seasons, off


@settings(max_examples=40, deadline=None)
@given(counts)
def test_holt_winters_a_day_at_a_time_is_holt_winters_step_by_step_with_the_best_rates(values: list[int]) -> None:
    row = np.array(values[: len(values) // 6 * 6], dtype=float)
    fitted = HoltWinters().fit(History(row, 6))
    worst = []
    for level in HoltWinters.levels:
        for season in HoltWinters.seasons:
            at, seasons, off = holt_winters(np.sqrt(row), 6, level, season)
            worst.append((sum(o * HoltWinters.forgets ** (len(off) - 1 - i) for i, o in enumerate(off)), at, seasons))
    least = min(w[0] for w in worst)
    assert any(w[0] == pytest.approx(least, abs=1e-9) and fitted.level == pytest.approx(w[1]) and fitted.season == pytest.approx(w[2], abs=1e-9) for w in worst)


def test_holt_winters_follows_a_level_that_moves_and_stays_with_one_that_does_not() -> None:
    shape = 20 + 10 * np.sin(np.arange(DAY) / DAY * 2 * np.pi)
    rising = np.concatenate([shape * 1.1**day for day in range(14)])
    assert HoltWinters().fit(History(rising, DAY)).predict(DAY).mean() == pytest.approx(rising[-DAY:].mean(), rel=0.1)
    still = np.tile(shape, 14)
    assert HoltWinters().fit(History(still, DAY)).predict(2 * DAY) == pytest.approx(np.tile(shape, 2), rel=1e-6)


def test_last_week_is_moved_half_the_way_to_the_level_of_the_last_day() -> None:
    week = np.full(7 * DAY, 16.0)
    week[:DAY] = 64.0
    last = np.r_[week, np.full(DAY, 64.0)]  # the first day again as it was
    assert WeekLevel().fit(History(last, DAY)).predict(2) == pytest.approx([16.0, 16.0])
    fewer = np.r_[week, np.full(DAY, 16.0)]  # half of it, in roots
    factor = ((4.0 + 0.05 * 4.0) / (8.0 + 0.05 * 4.0)) ** 0.5
    assert WeekLevel().fit(History(fewer, DAY)).predict(2) == pytest.approx([16.0 * factor**2] * 2)


def test_last_week_is_left_as_it_was_without_half_a_day_to_compare_and_a_quiet_day_moves_it_within_bounds() -> None:
    week = np.full(7 * DAY, 9.0)
    short = np.r_[week, np.zeros(11)]
    assert WeekLevel().fit(History(short, DAY)).predict(3) == pytest.approx([9.0] * 3)
    dead = WeekLevel().fit(History(np.r_[week, np.zeros(DAY)], DAY))
    assert dead.predict(8 * DAY).max() == pytest.approx(9.0 * 0.25)


def test_the_weekdays_median_is_moved_by_no_single_burst_and_the_mean_is() -> None:
    values = np.full(21 * DAY, 25.0)
    burst = values.copy()
    burst[-3 * DAY + 5] = 90_000.0
    calm = WeekdayMedian().fit(History(values, DAY)).predict(DAY)
    assert WeekdayMedian().fit(History(burst, DAY)).predict(DAY) == pytest.approx(calm)
    assert WeekdaySlots().fit(History(burst, DAY)).predict(DAY)[5] > 2 * calm[5]


def test_the_slots_beside_speak_half_in_the_median() -> None:
    root = np.ones(DAY)
    root[12] = 9.0  # weighs 1, its neighbours 1 together: the half lies a third of the way from them to it
    said = WeekdayMedian().fit(History(root**2, DAY)).predict(DAY)
    assert said[12] == pytest.approx((1 + 8 / 3) ** 2)
    assert said[[10, 14]] == pytest.approx([1.0, 1.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=2 * 6, max_size=30 * 6), st.integers(1, 20), st.sampled_from([WeekdaySlots, WeekdayMedian]))
def test_slots_stay_within_what_was_seen_and_are_the_same_however_far_is_asked(values: list[int], steps: int, kind: type) -> None:
    row = np.array(values, dtype=float)
    said = kind().fit(History(row, 6)).predict(steps)
    assert said.shape == (steps,)
    assert (said >= row.min() - 1e-6).all()
    assert (said <= row.max() + 1e-6).all()
    assert kind().fit(History(row, 6)).predict(steps + 13)[:steps] == pytest.approx(said)


def test_the_weighted_mean_of_slots_is_that_of_a_plain_loop() -> None:
    root = np.sqrt(np.random.default_rng(3).poisson(30, 16 * DAY + 7).astype(float))
    said = WeekdaySlots().fit(History(root**2, DAY)).predict(3 * DAY)
    for step in (0, 5, 23, 24, 50, 71):
        at, total, weights = len(root) + step, 0.0, 0.0
        for ago in range(1 + step // DAY, 29):
            if at - ago * DAY >= 0:
                weight = 6.0 * 0.8 ** (ago / 7 - 1) if ago % 7 == 0 else 0.8**ago
                total, weights = total + weight * root[at - ago * DAY], weights + weight
        assert said[step] == pytest.approx((total / weights) ** 2)


def test_days_far_from_all_others_are_no_analogues() -> None:
    rng = np.random.default_rng(5)
    shape = 50 + 30 * np.sin(np.arange(DAY) / DAY * 2 * np.pi)
    like = [rng.poisson(shape).astype(float) for _ in range(3)]
    unlike = [np.full(DAY, 5000.0)] * 4
    values = np.concatenate([*like[:2], *unlike, like[2]])
    # of the days before, only the first was followed by one that is not out of this world
    assert Analogues(week_bonus=0.0).fit(History(values, DAY)).predict(DAY).max() > 1000
    alone = np.concatenate([like[0], like[1], like[2], *unlike, shape, shape, shape])
    assert Analogues(week_bonus=0.0).fit(History(alone, DAY)).predict(DAY).max() < 200


def folds(errors: dict[str, list[float]]) -> list[Fold]:
    """Folds one after the other, in which each named candidate was off by so much, and the core by one."""
    found = []
    for i in range(max(map(len, errors.values()))):
        came = np.full(DAY, 100.0)
        made = dict.fromkeys(CORE, came + 1.0) | {name: came + off[i] for name, off in errors.items() if i < len(off)}
        found.append(Fold(i * DAY, 1.0, made, came))
    return found


def test_only_a_dear_candidate_is_dropped_and_only_when_clearly_behind_after_some_days() -> None:
    dear = DEAR[0]
    core = folds({dear: [1.0]})[0]
    off = float(np.abs(core.made[dear] - core.came).mean())
    assert off == 1.0
    assert behind(folds({dear: [2.0] * 3}), steps=DAY) == set()
    assert behind(folds({dear: [2.0] * 4}), steps=DAY) == {dear}
    assert behind(folds({dear: [1.1] * 9}), steps=DAY) == set()
    assert behind(folds({dear: [2.0] * 4 + [0.0] * 5}), steps=DAY) == set()
    assert behind(folds({"same as yesterday": [50.0] * 9}), steps=DAY) == set()


def test_what_is_dropped_is_not_asked_again_and_the_earlier_days_stay_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fit(self: Boosting, history: History) -> Boosting:
        asked.append(len(history))
        self.history = history
        return self

    monkeypatch.setattr(Boosting, "fit", fit)
    monkeypatch.setattr(Boosting, "predict", lambda self, steps: np.full(steps, 900.0))
    hours = np.arange(20 * DAY)
    values = np.random.default_rng(1).poisson(40 + 30 * np.sin(hours * 2 * np.pi / DAY)).astype(float)
    made = making.make(series_of.of(values, step_s=3600), horizon=DAY)
    assert len(asked) == backtest.TRIES
    assert max(asked) < 14 * DAY
    assert made.method != Boosting.name
    asked.clear()
    backtest.run(series_of.of(values, step_s=3600), steps=DAY, every=6, most=30)
    assert len(asked) == backtest.TRIES + 3, "three more had been asked before the fourth day was over"


def test_every_dear_candidate_is_one_and_the_core_is_made_of_candidates() -> None:
    names = {kind.name for kind in CANDIDATES}
    assert set(DEAR) <= names
    assert set(CORE) <= names - set(DEAR)


def uneven(days: int, seed: int, *, weekend: float) -> np.ndarray:
    """Counts an hour whose days differ in level, as real ones do."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * DAY)
    level = np.exp(0.25 * rng.normal(size=days))[hours // DAY]
    return rng.poisson(60 * level * (1 + 0.8 * np.sin(hours * 2 * np.pi / DAY)) * np.where(hours // DAY % 7 >= 5, weekend, 1.0)).astype(float)


@pytest.mark.parametrize(("days", "weekend", "low", "high"), [(8, 1.0, 0.70, 0.88), (16, 0.4, 0.75, 0.85)])
def test_the_range_holds_about_as_often_as_it_says_over_many_series(
    days: int, weekend: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choice and width made from what was known at each past day. Nobody knows of weekends before the first."""
    monkeypatch.setattr(candidates, "CANDIDATES", tuple(kind for kind in CANDIDATES if kind is not Boosting))  # for its time
    held = []
    for seed in range(16):
        series = series_of.of(uneven(days, seed, weekend=weekend), step_s=3600)
        tried = backtest.run(series, steps=DAY)
        held.append(making.walk(series, tried, tried[-1].made, target_share=0.99)[1].coverage)
    assert low <= float(np.mean(held)) <= high


def test_ranges_are_wider_while_few_days_speak() -> None:
    came = 100.0 + 10 * np.random.default_rng(2).normal(size=(8, DAY))
    tried = [Fold(i * DAY, 1.0, {"same as yesterday": np.full(DAY, 100.0)}, came[i]) for i in range(8)]
    series = series_of.of(came.ravel(), step_s=3600)
    made = {"same as yesterday": np.full(DAY, 100.0)}

    def width(folds: list[Fold]) -> float:
        found = making.ranged(series, folds, made, origin=8 * DAY, target_share=0.99)
        return float((found.p90 - found.p10).mean())

    same = [Fold(i * DAY, 1.0, tried[0].made, came[0]) for i in range(8)]
    assert width(same[:1]) / width(same) == pytest.approx(((1 + making.FEW) / (1 + making.FEW / 8)) ** 0.5, rel=0.12)


@given(st.lists(st.floats(0, 1), max_size=40))
def test_the_width_stays_within_bounds_whatever_the_ranges_held(held: list[float]) -> None:
    ends = [(i, share) for i, share in enumerate(held)]
    low, high = (float(np.exp(bound)) for bound in making.LOG_WIDTH)
    assert low - 1e-9 <= making._width(ends, 10**9) <= high + 1e-9
    if held and all(share < 0.8 for share in held):
        assert making._width(ends, 10**9) > 1
    assert making._width(ends, -1) == 1.0
