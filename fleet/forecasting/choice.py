"""Which candidate forecasts a series, by what each got wrong in the past, and whether the result is good enough to move a floor.

The ensemble is preferred: few folds cannot tell good luck from skill. A candidate that was a tenth better over enough
folds joins it; one that was clearly better replaces it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fleet.forecasting.backtest import Fold
from fleet.forecasting.candidates import CORE, ENSEMBLE, RecentMean, WeekdaySlots, Yesterday, together
from fleet.forecasting.series import Floats

ENOUGH_FOLDS = 7
"""Before anybody is preferred by its errors."""
CLEARLY_BETTER = 0.85
JOINS = 0.9
"""A candidate with at most so many times the core's error joins the ensemble: one that was as good may only not have seen a weekend."""
LEAST_DAYS = 7.0
WORST_WAPE = 0.40
HOPELESS_WAPE = 0.60
EXPLAINS = 0.7
"""Above WORST_WAPE the floor may still follow the range, if the forecast leaves at most this share of what "always the same" gets wrong."""
BEATS_NAIVE = 1.05
"""Times the error of "as a day before"; a few days cannot tell less."""
CALIBRATED = (0.65, 0.95)


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate's name, or the ensemble's with what its members weigh."""

    name: str
    weights: Mapping[str, float]
    why: str = ""

    def of(self, made: Mapping[str, Floats]) -> Floats | None:
        """The chosen forecast among those made, with fewer members where some could not be asked; None when nothing was made."""
        found = together(made, self.weights)
        return found if found is not None else (made[_order(made)[0]] if made else None)


def choose(folds: Sequence[Fold], made: Mapping[str, Floats], *, steps: int) -> Choice:
    """The choice from past folds (their first `steps`) among what can be made now. Whatever came after those folds is not asked."""
    core = {name: weight for name, weight in CORE.items() if name in made}
    if len(core) < 2:
        name = _order(made)[0]
        return Choice(name, {name: 1.0}, "There is too little history for more.")
    own = {fold.origin: _off(together(fold.made, core), fold, steps) for fold in folds}
    joined, better = dict(core), []
    for name in made:
        ours, theirs = _compared(folds, name, own, steps)
        if len(ours) < ENOUGH_FOLDS:
            continue
        ratio = _ratio(sum(theirs), sum(ours))
        if name not in core and ratio <= JOINS:
            joined[name] = 1.0
        if ratio < CLEARLY_BETTER:
            better.append((ratio, name))
    if better:
        ratio, name = min(better)
        return Choice(name, {name: 1.0}, f"Its error was {1 - ratio:.0%} below the ensemble's on {ENOUGH_FOLDS} past days or more.")
    return Choice(ENSEMBLE, joined, "A weighted mean of " + ", ".join(f"“{name}”" for name in joined) + ".")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a forecast may move the floor, and why not, or what limits it; one sentence, or nothing."""

    usable: bool
    why: str = ""


def judge(*, days: float, wape: float, naive: float, covered: float, explained: float, demand: float) -> Verdict:
    """`naive` is the forecast's error over that of "as a day before", `explained` over that of "always the history's median"; `demand` all there was."""
    if demand <= 0:
        return Verdict(False, "There was no demand at all: what is seen now decides.")
    if days < LEAST_DAYS:
        return Verdict(False, f"It has {days:.1f} days of data of the {LEAST_DAYS:g} it needs: what is seen now decides.")
    if not math.isfinite(wape):
        return Verdict(False, "Its error could not be measured on the past: what is seen now decides.")
    if wape <= WORST_WAPE:
        return Verdict(True)
    if wape <= HOPELESS_WAPE and explained <= EXPLAINS and _at_most(naive, BEATS_NAIVE) and CALIBRATED[0] <= covered <= CALIBRATED[1]:
        return Verdict(True, f"Its error is {wape:.0%} of demand, but its range held {covered:.0%} of the time: the floor goes by the range.")
    return Verdict(False, f"Its error is {wape:.0%} of demand, more than {WORST_WAPE:.0%}: what is seen now decides.")


def _at_most(value: float, limit: float) -> bool:
    return math.isfinite(value) and value <= limit


def _off(said: Floats | None, fold: Fold, steps: int) -> float | None:
    """Mean absolute error over the known steps; None where nothing was said or came."""
    if said is None:
        return None
    off = np.abs(said[:steps] - fold.came[:steps])
    known = off[~np.isnan(off)]
    return float(known.mean()) if len(known) else None


def _compared(folds: Sequence[Fold], name: str, own: Mapping[int, float | None], steps: int) -> tuple[list[float], list[float]]:
    """Errors of the core and of `name` in the folds where both answered."""
    ours, theirs = [], []
    for fold in folds:
        mine, other = own[fold.origin], _off(fold.made.get(name), fold, steps)
        if mine is not None and other is not None:
            ours.append(mine)
            theirs.append(other)
    return ours, theirs


def _ratio(value: float, over: float) -> float:
    return value / over if over > 0 else (1.0 if value == 0 else math.inf)


def _order(made: Mapping[str, Floats]) -> list[str]:
    """The names made, preferred one first: what remains when there is no ensemble."""
    return sorted(made, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))


PREFERRED = (WeekdaySlots.name, Yesterday.name, RecentMean.name)
