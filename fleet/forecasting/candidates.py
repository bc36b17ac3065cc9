"""Ways to forecast a demand series, each a small class: `fit(history)`, then `predict(steps)`.

All work on square roots: counts vary with their level, and a root evens that out. Nothing here looks past the end of its history.
Sources: seasonal naive and ETS after Hyndman and Athanasopoulos, Forecasting: Principles and Practice; analogues after Lorenz (1969).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
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


class WeekLevel:
    """As last week, moved half the way to the level that the last day had against the same day a week before."""

    name = "last week at today's level"
    least_days = 7.0
    share = 0.5
    bounds = (0.25, 4.0)
    hold = 0.05
    """Of the week's mean: keeps a quiet day from moving anything."""

    def fit(self, history: History) -> WeekLevel:
        root = np.sqrt(history.values)
        week, day = history.week, history.per_day
        self.last = root[-week:]
        self.factor = 1.0
        known = min(day, len(root) - week)
        if 2 * known >= day:
            hold = self.hold * float(self.last.mean()) * known + 1e-12
            now, before = float(root[-known:].sum()), float(root[-known - week : -week].sum())
            self.factor = min(self.bounds[1], max(self.bounds[0], (now + hold) / (before + hold))) ** self.share
        return self

    def predict(self, steps: int) -> Floats:
        return np.square(np.resize(self.last, steps) * self.factor)


class Slots(ABC):
    """What the same slot of past days held: the same weekday weighs most, then the recent days."""

    name: ClassVar[str]
    least_days: ClassVar[float] = 2.0
    decay = 0.8
    weekday = 6.0
    weeks = 4

    def fit(self, history: History) -> Slots:
        self.history = history
        return self

    def predict(self, steps: int) -> Floats:
        day = self.history.per_day
        root = np.sqrt(self.history.values)
        return np.square(np.concatenate([self._day(root, ahead, min(day, steps - ahead * day)) for ahead in range(-(-steps // day))]))

    def _day(self, root: Floats, ahead: int, slots: int) -> Floats:
        """The first slots of the day that is so many days ahead."""
        day = self.history.per_day
        ago = np.arange(1 + ahead, WEEK_DAYS * self.weeks + 1)
        back = len(root) + ahead * day + np.arange(slots)[None, :] - ago[:, None] * day
        weight = np.where(ago % WEEK_DAYS == 0, self.weekday * self.decay ** (ago / WEEK_DAYS - 1), self.decay**ago)
        return self._middle(root, back, np.where(back >= 0, weight[:, None], 0.0))

    @abstractmethod
    def _middle(self, root: Floats, back: Any, weight: Floats) -> Floats:
        """Of the slots `back` of the past (days by slots), each with its weight."""


class WeekdaySlots(Slots):
    name = "same weekday's mean"

    def _middle(self, root: Floats, back: Any, weight: Floats) -> Floats:
        made: Floats = (weight * root[np.maximum(back, 0)]).sum(axis=0) / weight.sum(axis=0)
        return made


class WeekdayMedian(Slots):
    """Their weighted median, with the slots beside it at half their weight: it is what the mean absolute error asks for, and no burst moves it."""

    name = "same weekday's median"
    beside = 0.5

    def _middle(self, root: Floats, back: Any, weight: Floats) -> Floats:
        near = [(0, 1.0), (-1, self.beside), (1, self.beside)]
        values = np.concatenate([root[np.clip(back + by, 0, len(root) - 1)] for by, _ in near])
        return _median(values, np.concatenate([weight * share for _, share in near]))


def _median(values: Floats, weights: Floats) -> Floats:
    """The weighted median of each column, between neighbours where the half falls between them. What weighs nothing is put behind the others."""
    values = np.where(weights > 0, values, 2 * values.max() + 1)
    order = np.argsort(values, axis=0, kind="stable")
    values, weights = np.take_along_axis(values, order, axis=0), np.take_along_axis(weights, order, axis=0)
    total = weights.sum(axis=0)
    reached = np.cumsum(weights, axis=0) - weights / 2
    return np.array([np.interp(total[i] / 2, reached[:, i], values[:, i]) for i in range(values.shape[1])])


class Analogues:
    """What followed the past days that were most like the last `days`; the one of a week ago counts as nearer than it looks.

    A day more than `reach` times as far as the nearest is none of them.
    """

    name = "days like these"
    least_days = 3.0
    reach = 2.0

    def __init__(self, days: int = 1, nearest: int = 6, week_bonus: float = 0.5) -> None:
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
        seen = np.array([np.abs(root[e - window : e] - last).mean() for e in ends])
        far = seen - np.where((n - ends) % (WEEK_DAYS * per_day) == 0, self.week_bonus * float(np.median(seen)), 0.0)
        near = np.argsort(far, kind="stable")[: self.nearest]
        found = ends[near[far[near] <= max(far[near[0]], self.reach * seen.min())]]
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
CANDIDATES: tuple[type[Any], ...] = (
    RecentMean, Yesterday, LastWeek, WeekLevel, WeekdaySlots, WeekdayMedian, Analogues, TwoDayAnalogues, HoltWinters, Decomposed, Boosting
)  # fmt: skip
CORE = {Analogues.name: 2.0, WeekdayMedian.name: 1.0, WeekLevel.name: 1.0}
"""The ensemble's members and their weights: three that see the week differently. Others join when they have proved as good."""
FITTED = (HoltWinters, Decomposed, Boosting)
DEAR = (Boosting.name,)
"""Take a hundred times as long as the others: no longer asked once they are clearly behind."""
FEWEST_A_DAY = 4


def forecast_all(history: History, steps: int, *, without: Collection[str] = ()) -> dict[str, Floats]:
    """Every candidate's forecast that the history is long enough for, by name, but for those `without`. Empty without history."""
    made: dict[str, Floats] = {}
    if not len(history):
        return made
    most = float(history.values.max())
    plain = float(history.values.min()) == most  # nothing to fit, and some fits divide by the variance
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for kind in CANDIDATES:
            if kind.name in without or not _answers(kind, history) or (plain and kind in FITTED):
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
    return kind not in FITTED or history.per_day >= FEWEST_A_DAY


CEILING = 3.0
"""No forecast goes above so many times the highest demand ever seen."""


def together(made: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats | None:
    """The ensemble of those of its members that answered: the square of the weighted mean of their roots. None when none did."""
    there = [name for name in weights if name in made]
    if not there:
        return None
    total = sum(weights[name] for name in there)
    return np.square(sum((weights[name] / total) * np.sqrt(made[name]) for name in there))
