"""Ways to forecast a demand series, each a small class: `fit(history)`, then `predict(steps)`.

All work on square roots: counts vary with their level, and a root evens that out. Nothing here looks past the end of its history.
Sources: seasonal naive and ETS after Hyndman and Athanasopoulos, Forecasting: Principles and Practice; analogues after Lorenz (1969).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from fleet.forecasting.fitted import Boosting, Decomposed, HoltWinters
from fleet.forecasting.series import WEEK_DAYS, Floats, History


class Candidate(Protocol):
    name: ClassVar[str]
    least_days: ClassVar[float]
    """Days of history without which it cannot be asked."""

    def fit(self, history: History) -> Candidate: ...

    def predict(self, steps: int) -> Floats: ...


class RecentMean:
    """The last hours' mean: all that can be said without a whole day."""

    name = "recent mean"
    least_days = 0.0

    def fit(self, history: History) -> RecentMean:
        last = history.values[-max(1, history.per_day // 8) :]
        self.level = float(last.mean()) if len(last) else 0.0
        return self

    def predict(self, steps: int) -> Floats:
        return np.full(steps, self.level)


class SameAs:
    """As so long ago, again and again."""

    name: ClassVar[str]
    least_days: ClassVar[float]
    lag_days: ClassVar[int]

    def fit(self, history: History) -> SameAs:
        self.last = history.values[-self.lag_days * history.per_day :]
        return self

    def predict(self, steps: int) -> Floats:
        return np.resize(self.last, steps)


class Yesterday(SameAs):
    name = "same as yesterday"
    least_days = 1.0
    lag_days = 1


class LastWeek(SameAs):
    name = "same as last week"
    least_days = 7.0
    lag_days = 7


class WeekdaySlots:
    """The mean of the same slot of past weeks' same weekday, helped out by the same slot of the other recent days."""

    name = "same weekday's mean"
    least_days = 2.0
    decay = 0.8
    weekday = 6.0

    def fit(self, history: History) -> WeekdaySlots:
        self.history = history
        return self

    def predict(self, steps: int) -> Floats:
        h = self.history
        root = np.sqrt(h.values)
        most = WEEK_DAYS * 4 * h.per_day
        out = np.empty(steps)
        for i in range(steps):
            at = len(root) + i
            back = np.arange(at - h.per_day * (1 + i // h.per_day), max(-1, at - most - 1), -h.per_day)
            ago = (at - back) / h.per_day
            weight = np.where(ago % WEEK_DAYS == 0, self.weekday * self.decay ** (ago / WEEK_DAYS - 1), self.decay**ago)
            out[i] = np.dot(weight, root[back]) / weight.sum()
        return np.square(out)


class Analogues:
    """What followed the past days that were most like the last `days`; the one of a week ago counts as nearer than it looks."""

    name = "days like these"
    least_days = 3.0

    def __init__(self, days: int = 1, nearest: int = 2, week_bonus: float = 0.5) -> None:
        self.days, self.nearest, self.week_bonus = days, nearest, week_bonus

    def fit(self, history: History) -> Analogues:
        self.history = history
        return self

    def predict(self, steps: int) -> Floats:
        h = self.history
        root = np.sqrt(h.values)
        window = self.days * h.per_day
        parts: list[Floats] = []
        while sum(map(len, parts)) < steps:
            parts.append(self._next_day(root, window, h.per_day))
            root = np.concatenate((root, parts[-1]))
        return np.square(np.concatenate(parts)[:steps])

    def _next_day(self, root: Floats, window: int, per_day: int) -> Floats:
        n = len(root)
        ends = np.arange(n - per_day, window - 1, -per_day)
        if not len(ends):
            return root[-per_day:]
        last = root[-window:]
        far = np.array([np.abs(root[e - window : e] - last).mean() for e in ends])
        far = far - np.where((n - ends) % (WEEK_DAYS * per_day) == 0, self.week_bonus * float(np.median(far)), 0.0)
        found = ends[np.argsort(far, kind="stable")[: self.nearest]]
        weight = 1.0 / np.arange(1, len(found) + 1)
        follow = np.stack([root[e : e + per_day] for e in found])
        made: Floats = weight @ follow / weight.sum()
        return made


class TwoDayAnalogues(Analogues):
    name = "two days like these"
    least_days = 4.0

    def __init__(self) -> None:
        super().__init__(days=2)


ENSEMBLE = "ensemble"
CANDIDATES: tuple[type[Any], ...] = (RecentMean, Yesterday, LastWeek, WeekdaySlots, Analogues, TwoDayAnalogues, HoltWinters, Decomposed, Boosting)
CORE = {Analogues.name: 2.0, WeekdaySlots.name: 1.0, LastWeek.name: 1.0}
"""The ensemble's members and their weights: three that see the week differently. Others join when they have proved as good."""
FITTED = (HoltWinters, Decomposed, Boosting)
FEWEST_A_DAY = 4
FINEST_SEASON = 48
"""Steps a day up to which Holt-Winters is tried."""


def forecast_all(history: History, steps: int) -> dict[str, Floats]:
    """Every candidate's forecast that the history is long enough for, by name. Empty without history."""
    made: dict[str, Floats] = {}
    if not len(history):
        return made
    most = float(history.values.max())
    plain = float(history.values.min()) == most  # nothing to fit, and some fits divide by the variance
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for kind in CANDIDATES:
            if not _answers(kind, history) or (plain and kind in FITTED):
                continue
            try:
                values = np.asarray(kind().fit(history).predict(steps), dtype=np.float64)
            except (ValueError, np.linalg.LinAlgError, FloatingPointError, ZeroDivisionError):
                continue  # a series it cannot digest: the others answer
            if values.shape == (steps,) and np.isfinite(values).all():
                made[kind.name] = np.clip(values, 0.0, CEILING * most)
    return made


def _answers(kind: type[Any], history: History) -> bool:
    if len(history) < kind.least_days * history.per_day:
        return False
    return kind not in FITTED or (history.per_day >= FEWEST_A_DAY and (kind is not HoltWinters or history.per_day <= FINEST_SEASON))


CEILING = 3.0
"""No forecast goes above so many times the highest demand ever seen."""


def together(made: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats | None:
    """The ensemble of those of its members that answered: the square of the weighted mean of their roots. None when none did."""
    there = [name for name in weights if name in made]
    if not there:
        return None
    total = sum(weights[name] for name in there)
    return np.square(sum((weights[name] / total) * np.sqrt(made[name]) for name in there))
