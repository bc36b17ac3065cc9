"""Candidates that fit something: exponential smoothing, seasonal decomposition, gradient boosting. Their libraries load when first used."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleet.forecasting.series import WEEK_DAYS, Floats, History


class HoltWinters:
    """ETS with an additive daily season on roots, no trend. For up to 48 steps a day; finer ones take too long to fit."""

    name = "Holt-Winters"
    least_days = 3.0

    def fit(self, history: History) -> HoltWinters:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        root = np.sqrt(history.values[-WEEK_DAYS * 4 * history.per_day :])
        model = ExponentialSmoothing(root, seasonal="add", seasonal_periods=history.per_day, initialization_method="heuristic")
        self.fitted: Any = model.fit(optimized=True, minimize_kwargs={"options": {"maxiter": 20}})
        return self

    def predict(self, steps: int) -> Floats:
        return np.square(np.maximum(np.asarray(self.fitted.forecast(steps), dtype=np.float64), 0.0))


class Decomposed:
    """STL, or MSTL with day and week from 15 days on; the rest by simple exponential smoothing that reverts to its mean within days."""

    name = "MSTL + ETS"
    least_days = 3.0

    def fit(self, history: History) -> Decomposed:
        from statsmodels.tsa.seasonal import MSTL, STL

        root = np.sqrt(history.values[-WEEK_DAYS * 4 * history.per_day :])
        self.day, self.week = history.per_day, history.week
        if len(root) >= 2 * self.week + self.day:
            parts = np.asarray(MSTL(root, periods=(self.day, self.week), iterate=1).fit().seasonal)
            self.seasons = [parts[-self.day :, 0], parts[-self.week :, 1]]
            rest = root - parts.sum(axis=1)
        else:
            season = np.asarray(STL(root, period=self.day, seasonal=7).fit().seasonal)
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
        from threadpoolctl import threadpool_limits

        self.history = history
        root = np.sqrt(history.values)
        rows = np.arange(max(history.per_day, len(root) - self.rows), len(root))
        known = self._features(root, rows)
        self.keep = [c for c in range(known.shape[1]) if _differing(known[:, c]) >= 4]
        if not self.keep:
            self.model: Any = None
            return self
        with threadpool_limits(1):
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
            root = np.concatenate((root, np.maximum(self.model.predict(self._features(root, rows)[:, self.keep]), 0.0)))
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


def _at(root: Floats, index: Any) -> Floats:
    inside = (index >= 0) & (index < len(root))
    return np.where(inside, root[np.clip(index, 0, len(root) - 1)], np.nan)


def _differing(column: Floats) -> int:
    return len(np.unique(column[~np.isnan(column)]))
