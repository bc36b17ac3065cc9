"""How wrong the candidates would have been: at past origins each is fitted on what was known then, and compared with what came.

The measures: WAPE, sum of absolute errors over sum of demand. MASE (Hyndman and Koehler, 2006), mean absolute error over that of
"as a day before" within the history known at each origin. Pinball loss of a quantile. Coverage, the share of steps inside a range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fleet.forecasting.candidates import CORE, DEAR, forecast_all, together
from fleet.forecasting.series import WEEK_DAYS, Floats, History, Series, filled

MOST_FOLDS = 12
FIRST_DAYS = 2.0
"""Of history before the first origin; half as many while that leaves fewer than FEW of them."""
FEW = 2
TRIES = 4
HOPELESS = 1.15
"""Times the core's error over TRIES folds or more: a dear candidate is dropped (successive halving, Jamieson and Talwalkar, 2016, for one)."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One past origin: steps known, forecast by every candidate, and what came. Steps that had not come yet, or are unknown, are NaN."""

    origin: int
    scale: float
    """Mean absolute error of "as a day before" in the history: what MASE divides by. NaN when there is none."""
    made: dict[str, Floats]
    came: Floats


def run(series: Series, *, steps: int, every: int | None = None, most: int = MOST_FOLDS, first: int | None = None) -> list[Fold]:
    """Folds of the last `most` origins, one every so many steps (a day unless said), oldest first; each looks `steps` ahead.

    The newest is the one whose first day has just passed. None when the history is too short for any.
    """
    day = series.per_day
    every = every or day
    known = len(series.values)
    whole = min(steps, day)

    def since(days: float) -> list[int]:
        return list(range(known - whole, max(int(days * day), first or 0) - 1, -every))[:most]

    origins = since(FIRST_DAYS)
    if len(origins) < FEW:
        origins = since(FIRST_DAYS / 2)
    folds: list[Fold] = []
    for origin in reversed(origins):
        folds.append(fold(series, origin, steps=steps, without=behind([f for f in folds if f.origin + whole <= origin], steps=whole)))
    return folds


def behind(folds: Sequence[Fold], *, steps: int) -> set[str]:
    """The dear candidates that were clearly worse than the core over the first folds they answered in, or were left out since: not worth asking again."""
    gone: set[str] = set()
    for name in DEAR:
        tried = [(f, core) for f in folds if name in f.made and (core := together(f.made, CORE)) is not None]
        if len(tried) < TRIES:
            continue
        theirs = measure([(f.made[name][:steps], f.came[:steps], f.scale) for f, _ in tried])
        ours = measure([(core[:steps], f.came[:steps], f.scale) for f, core in tried])
        if theirs.mae > HOPELESS * ours.mae:
            gone.add(name)
    return gone


def fold(series: Series, origin: int, *, steps: int, without: Collection[str] = ()) -> Fold:
    """What each candidate but those `without` said of the next `steps` with the first `origin` steps of the series known."""
    past = history(series, origin)
    came = np.full(steps, np.nan)
    future = series.values[origin : origin + steps]
    came[: len(future)] = future
    return Fold(origin, day_scale(past.values, past.per_day), forecast_all(past, steps, without=without), came)


def history(series: Series, until: int) -> History:
    """The first `until` steps as the candidates take them."""
    day = series.per_day
    return History(filled(series.values[:until], day), day, round(series.start_s / series.step_s) % (day * WEEK_DAYS))


def day_scale(values: Floats, per_day: int) -> float:
    """Mean absolute error of "as a day before" within the values; NaN when they are shorter than that, or never differ."""
    if len(values) <= per_day:
        return float("nan")
    error = float(np.abs(values[per_day:] - values[:-per_day]).mean())
    return error if error > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Errors:
    """Means over the steps that came. NaN where it cannot be said: no step, no demand, nothing to scale by."""

    wape: float
    mase: float
    mae: float
    folds: int
    steps: int


def errors(folds: Iterable[Fold], name: str, *, steps: int) -> Errors:
    """Of one candidate over the folds it answered in, for the first `steps` of each."""
    return measure([(f.made[name][:steps], f.came[:steps], f.scale) for f in folds if name in f.made])


def measure(rows: Sequence[tuple[Floats, Floats, float]]) -> Errors:
    """Errors of (said, came, scale) rows."""
    wrong = demand = scaled = scales = 0.0
    steps = 0
    for said, came, scale in rows:
        known = ~np.isnan(came)
        off = float(np.abs(said[known] - came[known]).sum())
        wrong += off
        demand += float(came[known].sum())
        steps += int(known.sum())
        if np.isfinite(scale):
            scaled += off
            scales += scale * int(known.sum())
    nan = float("nan")
    return Errors(
        wape=wrong / demand if demand > 0 else (0.0 if steps and wrong == 0 else nan),
        mase=scaled / scales if scales > 0 else nan,
        mae=wrong / steps if steps else nan,
        folds=len(rows),
        steps=steps,
    )


def pinball(said: Floats, came: Floats, q: float) -> float:
    """Mean pinball loss of quantile `q`; NaN without steps."""
    known = ~np.isnan(came)
    if not known.any():
        return float("nan")
    off = came[known] - said[known]
    return float(np.maximum(q * off, (q - 1) * off).mean())


def coverage(low: Floats, high: Floats, came: Floats) -> float:
    """Share of the steps that came inside the range, its ends included; NaN without steps."""
    known = ~np.isnan(came)
    if not known.any():
        return float("nan")
    near = 1e-6 * (1.0 + np.abs(came[known]))  # a root and its square differ in the last bits
    return float(((came[known] >= low[known] - near) & (came[known] <= high[known] + near)).mean())
