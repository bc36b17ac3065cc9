"""Whether a floor may be moved, by trial: what floors drawn from past forecasts would have cost and spared on the days that then came.

An error says how far a forecast was off; it does not say whether its floor was dear or late. Both sides of the trial are judged by the same
model of a reactive policy (`fleet.forecasting.floor`): the floors as they would have been drawn then, and the base all day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.forecasting import floor
from fleet.forecasting.choice import Verdict
from fleet.forecasting.floor import Terms
from fleet.forecasting.series import Floats

AS_GOOD = 1.1
"""Times what is allowed, or the late share of the base: nearer than that nobody can tell them apart."""
STANDS = 1.2
"""Times the limit that floors may reach which are in force already: else they would come and go from hour to hour."""
FEWEST_DAYS = 2


@dataclass(frozen=True, slots=True)
class PastDay:
    """What a past forecast said of the day that followed it, and what came (NaN where nobody looked); jobs per step."""

    p10: Floats
    p50: Floats
    p90: Floats
    came: Floats

    def times(self, factor: float) -> PastDay:
        """The same with so many times the jobs in each step."""
        return PastDay(self.p10 * factor, self.p50 * factor, self.p90 * factor, self.came * factor)


@dataclass(frozen=True, slots=True)
class Trial:
    """Of so many past days, with the floors and with the base: the share of the jobs that would have been late, and worker hours."""

    days: int
    late_share: float
    worker_hours: float
    base_late_share: float
    base_worker_hours: float
    promised_late_share: float
    """What those plans expected themselves: above the target where a job in time would have cost too much."""


def tried(past: Sequence[PastDay], *, step_s: float, terms: Terms, sure: bool) -> Trial:
    """The trial over those of the days of which anything is known; none where no job came at all. `sure` as in `allowed`."""
    days, jobs, promised = 0, 0.0, 0.0
    sums = np.zeros(4)
    for day in past:
        known = ~np.isnan(day.came)
        if not known.any():
            continue
        plan = floor.plan(np.stack([day.p10, day.p50, day.p90], axis=1), step_s=step_s, terms=terms)
        sides = (allowed(plan.floors, terms, sure=sure), [terms.base] * len(plan.floors))
        sums += [part for floors in sides for part in floor.outcome(day.came, floors, step_s=step_s, terms=terms)]
        came = float(day.came[known].sum())
        promised += plan.late_share * came
        jobs += came
        days += 1
    if jobs <= 0:
        return Trial(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Trial(days, sums[0] / jobs, float(sums[1]), sums[2] / jobs, float(sums[3]), promised / jobs)


def allowed(floors: Sequence[int], terms: Terms, *, sure: bool) -> list[int]:
    """The floors as they may be used: those of a forecast whose error is too large (not `sure`) only lower the base, they never raise it."""
    return [int(size) if sure else min(int(size), terms.base) for size in floors]


def judge(verdict: Verdict, trial: Trial, terms: Terms, *, stands: bool) -> Verdict:
    """Whether the forecast may move the floor. `verdict` is what its error says of it, `stands` whether it moves the floor already.

    Where the floor may go below the base, its record decides: floors that kept the target for fewer worker hours, or were hardly later than
    the base, are used, however large the error. Floors that were later are not, unless the error is small and they kept what their plans
    promised. Elsewhere, and before there is a record, the error decides.
    """
    if trial.days < FEWEST_DAYS or terms.least >= terms.base:
        return verdict
    target = 1.0 - terms.target_share
    limit = max(target, AS_GOOD * trial.base_late_share, AS_GOOD * trial.promised_late_share if verdict.usable else 0.0)
    on = f"On {trial.days} past days its floor would have"
    late, base = _share(trial.late_share), _share(trial.base_late_share)
    if trial.late_share > limit * (STANDS if stands else 1.0):
        return Verdict(False, f"{on} let {late} of the jobs wait too long; the base {base}, and the target allows {_share(target)}. The base stands.")
    if trial.worker_hours < trial.base_worker_hours:
        hours = f"{trial.worker_hours:,.0f} worker hours instead of {trial.base_worker_hours:,.0f}"
        return Verdict(True, f"{on} cost {hours}, with {late} of the jobs late instead of {base}.")
    return verdict


def _share(value: float) -> str:
    return f"{value:.2%}" if value < 0.1 else f"{value:.0%}"
