"""Candidates that fit something: exponential smoothing, seasonal decomposition, gradient boosting. scikit-learn loads when first used."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache, lru_cache
from typing import Any

import numpy as np

from fleet.forecasting import seasons
from fleet.forecasting.series import WEEK_DAYS, Floats, History


class HoltWinters:
    """ETS with an additive daily season on roots, no trend. Its two rates are those that were least wrong a day ahead, of a small grid.

    Within a day the seasons stand still, so that the level is a weighted sum: all rates are run at once, a day at a time.
    """

    name = "Holt-Winters"
    least_days = 3.0
    levels = (0.01, 0.03, 0.08, 0.2, 0.4)
    seasons = (0.03, 0.08, 0.15, 0.3, 0.5)
    forgets = 0.97
    """A day: what older errors weigh in the choice of rates."""

    def fit(self, history: History) -> HoltWinters:
        day = history.per_day
        root = np.sqrt(history.values[-WEEK_DAYS * 4 * day :])
        rows = root[len(root) % day :].reshape(-1, day)
        rates = np.array([(level, season) for level in self.levels for season in self.seasons])
        first = rows[:2].mean(axis=0)
        level = np.full(len(rates), first.mean())
        season = np.tile(first - first.mean(), (len(rates), 1))
        wrong = np.zeros(len(rates))
        keep, sums = _smoothing(self.levels, day)
        keep, sums = (np.repeat(part, len(self.seasons), axis=0) for part in (keep, sums))
        for i, row in enumerate(rows):
            if i >= 2:  # the first two days began it
                wrong = wrong * self.forgets + np.abs(row - level[:, None] - season).mean(axis=1)
            rest = row - season
            levels = keep * level[:, None] + (sums @ rest[:, :, None])[:, :, 0]
            before = np.concatenate((level[:, None], levels[:, :-1]), axis=1)
            season = season + rates[:, 1:] * (rest - before)
            level = levels[:, -1]
        best = int(np.argmin(wrong))
        self.level, self.season = float(level[best]), season[best]
        return self

    def predict(self, steps: int) -> Floats:
        return np.square(np.maximum(self.level + np.resize(self.season, steps), 0.0))


@lru_cache(maxsize=8)
def _smoothing(rates: tuple[float, ...], steps: int) -> tuple[Floats, Floats]:
    """For each rate: what the level before a day weighs in the level after each of its steps, and what the steps do."""
    rate = np.array(rates)[:, None, None]
    lag = np.arange(steps)[:, None] - np.arange(steps)[None, :]
    sums = np.where(lag >= 0, rate * (1 - rate) ** np.maximum(lag, 0), 0.0)
    return (1 - rate[:, 0]) ** (np.arange(steps) + 1.0), sums


class Decomposed:
    """STL, or MSTL with day and week from 15 days on; the rest by simple exponential smoothing that reverts to its mean within days."""

    name = "MSTL + ETS"
    least_days = 3.0

    def fit(self, history: History) -> Decomposed:
        root = np.sqrt(history.values[-WEEK_DAYS * 4 * history.per_day :])
        self.day, self.week = history.per_day, history.week
        if len(root) >= 2 * self.week + self.day:
            found, rest = seasons.several(root, (self.day, self.week))
            self.seasons = [found[0][-self.day :], found[1][-self.week :]]
        else:
            season = seasons.stl(root, self.day)
            self.seasons = [season[-self.day :]]
            rest = root - season
        weight = 0.5 ** (np.arange(len(rest))[::-1] / max(1.0, self.day / 2))
        self.level = float(np.dot(weight, rest) / weight.sum())
        self.mean = float(rest[-self.week :].mean())
        return self

    def predict(self, steps: int) -> Floats:
        fade = 0.5 ** (np.arange(steps) / (2 * self.day))
        root = self.mean + (self.level - self.mean) * fade
        for season in self.seasons:
            root = root + np.resize(season, steps)
        return np.square(np.maximum(root, 0.0))


class Boosting:
    """Gradient boosting on the slot of the day and of the week, what the same slot held days and weeks ago, and the last day's level."""

    name = "gradient boosting"
    least_days = 4.0
    rows = 4000

    def fit(self, history: History) -> Boosting:
        from sklearn.ensemble import HistGradientBoostingRegressor

        self.history = history
        root = np.sqrt(history.values)
        rows = np.arange(max(history.per_day, len(root) - self.rows), len(root))
        known = self._features(root, rows)
        self.keep = [c for c in range(known.shape[1]) if _differing(known[:, c]) >= 4]
        if not self.keep:
            self.model: Any = None
            return self
        with _one_thread():
            model = HistGradientBoostingRegressor(
                loss="absolute_error", max_iter=45, learning_rate=0.15, max_leaf_nodes=8, min_samples_leaf=12, max_bins=63, early_stopping=False, random_state=0
            )
            self.model = model.fit(known[:, self.keep], root[rows])
        return self

    def predict(self, steps: int) -> Floats:
        root = np.sqrt(self.history.values)
        if self.model is None:
            return np.resize(self.history.values[-self.history.per_day :], steps)
        made = 0
        while made < steps:
            rows = np.arange(len(root), len(root) + min(self.history.per_day, steps - made))
            with _one_thread():
                said = self.model.predict(self._features(root, rows)[:, self.keep])
            root = np.concatenate((root, np.maximum(said, 0.0)))
            made += len(rows)
        return np.square(root[len(root) - steps :])

    def _features(self, root: Floats, rows: Any) -> Floats:
        """A row per step, from values at least a day older than it."""
        day = self.history.per_day
        slot = rows + self.history.phase
        columns = [slot % day, slot // day % WEEK_DAYS, slot % (day * WEEK_DAYS)]
        for ago in (1, 2, 3, 4, 5, 6, 7, 8, 14, 21):
            columns.append(_at(root, rows - ago * day))
        sums = np.concatenate(([0.0], np.cumsum(root)))
        end = np.clip(rows - day + 1, 0, len(root))
        for length in (day, WEEK_DAYS * day):
            begin = np.maximum(end - length, 0)
            columns.append(np.where(end > begin, (sums[end] - sums[begin]) / np.maximum(end - begin, 1), np.nan))
        return np.stack(columns, axis=1).astype(np.float64)


def _one_thread() -> AbstractContextManager[Any]:
    """For so few rows threads only wait for each other, on a busy machine for milliseconds a tree."""
    return _libraries().limit(limits=1)  # type: ignore[no-any-return]


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _at(root: Floats, index: Any) -> Floats:
    inside = (index >= 0) & (index < len(root))
    return np.where(inside, root[np.clip(index, 0, len(root) - 1)], np.nan)


def _differing(column: Floats) -> int:
    return len(np.unique(column[~np.isnan(column)]))
