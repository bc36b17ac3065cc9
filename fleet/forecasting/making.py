"""A forecast from start to end: look at the series, test every candidate on its past, choose, put ranges around it, say how good it is.

Nothing here reads a clock: the same series gives the same forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleet.forecasting import backtest, choice, conformal
from fleet.forecasting.backtest import Errors, Fold
from fleet.forecasting.candidates import CANDIDATES, RecentMean, Yesterday, forecast_all
from fleet.forecasting.choice import Choice
from fleet.forecasting.series import WEEK_DAYS, Floats, Series, coarse, filled, settled
from fleet.forecasting.trial import PastDay

LOW, HIGH = 0.1, 0.9
LONGEST_DAYS = 28


@dataclass(frozen=True, slots=True)
class Made:
    """A forecast of `horizon` steps from `start_s` on, in the unit of the series per step."""

    start_s: float
    step_s: float
    method: str
    p50: Floats
    p10: Floats
    p90: Floats
    upper: Floats
    """The quantile that `target_share` of what comes stays under."""
    usable: bool
    why: str
    """Why it is not usable, or what limits it; may be empty. By its error alone: a trial of its floors may know better (`fleet.forecasting.trial`)."""
    chosen: str
    """Why this method."""
    history_days: float
    wape: float = float("nan")
    mase: float = float("nan")
    coverage: float = float("nan")
    pinball: float = float("nan")
    folds: int = 0
    by_method: dict[str, Errors] = field(default_factory=dict)
    level_changed: float | None = None
    """By how many times the level changed where the history begins; None: it did not, all of it counts."""
    spread: conformal.Spread | None = None
    past: Sequence[PastDay] = ()
    """Forecasts of past days, as they would have been made then, in steps of `past_step_s`: for a trial of their floors."""
    past_step_s: float = 0.0

    def report(self) -> dict[str, Any]:
        """The backtest as plain JSON: what `Forecast.backtest` holds."""
        return {
            "wape": _plain(self.wape),
            "mase": _plain(self.mase),
            "coverage": _plain(self.coverage),
            "pinball": _plain(self.pinball),
            "folds": self.folds,
            "level_changed": _plain(self.level_changed) if self.level_changed is not None else None,
            "by_method": [
                {"method": name, "wape": _plain(e.wape), "mase": _plain(e.mase), "mae": _plain(e.mae), "folds": e.folds} for name, e in self.by_method.items()
            ],
        }


def make(series: Series, *, horizon: int, target_share: float = 0.99, folds: int = backtest.MOST_FOLDS) -> Made:
    """Forecast the `horizon` steps after the series. Any series of steps will do, an empty one too; see `Made.usable`.

    Raises ValueError for a horizon below one step or beyond four weeks, or a share that is not between 0 and 1.
    """
    if horizon < 1 or horizon * series.step_s > LONGEST_DAYS * 86_400 + 1e-6:
        raise ValueError(f"horizon must be from one step to {LONGEST_DAYS} days")
    if not 0 < target_share < 1:
        raise ValueError("target_share must lie between 0 and 1")
    rough, times = coarse(series)
    late = len(series.values) % times if len(series.values) else 0
    steps = -(-(horizon + late) // times) if times > 1 else horizon
    since, changed = settled(rough)
    first = min(steps, since.per_day)
    tried = backtest.run(since, steps=steps, most=folds)
    past = backtest.history(since, len(since.values))
    made = forecast_all(past, steps, without=backtest.behind(tried, steps=first)) or {RecentMean.name: np.zeros(steps)}
    found, walked = walk(since, tried, made, target_share=target_share)
    judged = full(tried, since.per_day)
    errors = {kind.name: backtest.errors(judged, kind.name, steps=first) for kind in CANDIDATES if any(kind.name in f.made for f in judged)}
    own = walked.errors
    verdict = choice.judge(
        days=since.days,
        wape=own.wape,
        naive=_naive(own, errors.get(Yesterday.name)),
        covered=walked.coverage,
        explained=_explained(since, judged, own, first),
        demand=float(np.nansum(since.values)),
    )
    fine = [np.repeat(row, times)[:horizon] for row in (found.p50, found.p10, found.p90, found.upper)]
    return Made(
        start_s=series.end_s,
        step_s=series.step_s,
        method=found.choice.name,
        p50=fine[0],
        p10=fine[1],
        p90=fine[2],
        upper=fine[3],
        usable=verdict.usable,
        why=verdict.why,
        chosen=found.choice.why,
        history_days=since.days,
        wape=own.wape,
        mase=own.mase,
        coverage=walked.coverage,
        pinball=walked.pinball,
        folds=own.folds,
        by_method=errors,
        level_changed=changed,
        spread=found.spread,
        past=[day.times(times) for day in walked.past],
        past_step_s=since.step_s,
    )


@dataclass(frozen=True, slots=True)
class Ranged:
    """A chosen forecast with its ranges."""

    choice: Choice
    p50: Floats
    p10: Floats
    p90: Floats
    upper: Floats
    spread: conformal.Spread


@dataclass(frozen=True, slots=True)
class Walked:
    """How the whole procedure, choosing and ranging at every past origin from what was past then, would have done over each first day."""

    errors: Errors
    coverage: float
    pinball: float
    """Mean of the losses of the 10th, 50th and 90th percentile."""
    past: Sequence[PastDay]
    """Every first day, those with less than a week of history too."""


def walk(series: Series, folds: Sequence[Fold], made: dict[str, Floats], *, target_share: float) -> tuple[Ranged, Walked]:
    """Choose and range what was made now; and honestly measure that procedure: at each fold only folds that had ended by then count.

    The width of the ranges follows what they held so far (adaptive conformal inference, Gibbs and Candes, 2021). Measured are the folds
    with a week of history, as a forecast with less is not used; all of them where there are not two of those.
    """
    day = series.per_day
    width = 1.0
    ends: list[tuple[int, float]] = []
    rows: dict[int, tuple[Floats, Floats, float, Floats, Floats]] = {}
    for i, fold in enumerate(folds):
        if not fold.made:
            continue
        known = [_until(f, fold.origin) for f in folds[:i] if f.origin + min(day, len(f.came)) <= fold.origin]
        width = _width(ends, fold.origin)
        then = ranged(series, known, fold.made, origin=fold.origin, target_share=target_share, width=width)
        first = min(day, len(fold.came))
        rows[fold.origin] = (then.p50[:first], fold.came[:first], fold.scale, then.p10[:first], then.p90[:first])
        ends.append((fold.origin + first, backtest.coverage(then.p10[:first], then.p90[:first], fold.came[:first])))
    now = ranged(series, folds, made, origin=len(series.values), target_share=target_share, width=_width(ends, len(series.values)))
    past = [PastDay(low, said, high, came) for said, came, _, low, high in rows.values()]
    kept = [rows[fold.origin] for fold in full(folds, day) if fold.origin in rows]
    own = backtest.measure([row[:3] for row in kept])
    if not kept:
        return now, Walked(own, float("nan"), float("nan"), past)
    said, came, low, high = (np.concatenate([row[at] for row in kept]) for at in (0, 1, 3, 4))
    loss = float(np.mean([backtest.pinball(low, came, LOW), backtest.pinball(said, came, 0.5), backtest.pinball(high, came, HIGH)]))
    return now, Walked(own, backtest.coverage(low, high, came), loss, past)


def _width(ends: Sequence[tuple[int, float]], now: int) -> float:
    """By what the ranges are widened at step `now`, from (end, coverage) of the folds that had ended by then. Old lessons fade."""
    log = 0.0
    for end, held in ends:
        if end <= now and np.isfinite(held):
            log = min(LOG_WIDTH[1], max(LOG_WIDTH[0], FADES * log + LEARNS * (HIGH - LOW - held)))
    return float(np.exp(log))


LEARNS = 1.2
FADES = 0.8
LOG_WIDTH = (-0.5, 0.7)
FEW = 1.2
"""The hours of one day are off together: residuals of n days are widened by √(1 + FEW / n), as Student's t widens the normal range."""


def full(folds: Sequence[Fold], per_day: int) -> Sequence[Fold]:
    """The folds with a week of history, if there are two; else all."""
    late = [fold for fold in folds if fold.origin >= choice.LEAST_DAYS * per_day]
    return late if len(late) >= 2 else folds


def ranged(series: Series, folds: Sequence[Fold], made: dict[str, Floats], *, origin: int, target_share: float, width: float = 1.0) -> Ranged:
    """The forecast chosen by `folds` among `made`, which begins at step `origin` of the series, with ranges from the folds' residuals."""
    day = series.per_day
    steps = len(next(iter(made.values())))
    picked = choice.choose(folds, made, steps=min(steps, day))
    said = picked.of(made)
    assert said is not None  # made is never empty here
    phase = round(series.start_s / series.step_s) % (day * WEEK_DAYS)
    rows = []
    for fold in folds:
        then = picked.of(fold.made)
        if then is not None:
            rows.append((then, fold.came[: len(then)], phase + fold.origin))
    found = conformal.residuals(rows, per_day=day)
    if rows:
        width *= (1.0 + FEW / len(rows)) ** 0.5
    around = conformal.spread(found, per_day=day, days=-(-steps // day), usual=_usual(filled(series.values[:origin], day), day), width=width)
    low, high, upper = (around.bounds(said, q, slot=phase + origin, per_day=day) for q in (LOW, HIGH, target_share))
    low, high = np.minimum(low, said), np.maximum(high, said)
    return Ranged(picked, said, low, high, np.maximum(upper, high if target_share >= HIGH else said), around)


def _until(fold: Fold, now: int) -> Fold:
    """The fold as it stood at step `now`: what came later is not known."""
    came = fold.came.copy()
    came[max(0, now - fold.origin) :] = np.nan
    return Fold(fold.origin, fold.scale, fold.made, came)


def _usual(values: Floats, per_day: int) -> float:
    """How far a step strays from the step a day before, in roots; from the one before where there is no day."""
    root = np.sqrt(values)
    lag = per_day if len(root) > per_day + 3 else 1
    if len(root) <= lag:
        return float(root.mean()) if len(root) else 0.0
    return float(np.abs(root[lag:] - root[:-lag]).mean()) * 1.2


def _explained(series: Series, folds: Sequence[Fold], own: Errors, steps: int) -> float:
    """The procedure's error over that of "always the median of what was known"."""
    flat = []
    for fold in folds:
        past = series.values[: fold.origin]
        flat.append((np.full(steps, float(np.nanmedian(past)) if not np.isnan(past).all() else 0.0), fold.came[:steps], float("nan")))
    other = backtest.measure(flat)
    return own.mae / other.mae if other.mae > 0 else float("inf")


def _naive(own: Errors, other: Errors | None) -> float:
    """The procedure's error over that of "as a day before": on the same days or, as they may be two, over the history; the lesser counts."""
    same = own.mae / other.mae if other is not None and other.folds == own.folds and other.mae > 0 else float("nan")
    return float(np.fmin(same, own.mase))


def _plain(value: float | None) -> float | None:
    return round(float(value), 6) if value is not None and np.isfinite(value) else None
