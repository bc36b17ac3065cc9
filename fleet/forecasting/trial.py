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
"""Times the late share of the base: nearer than that nobody can tell them apart."""


@dataclass(frozen=True, slots=True)
class PastDay:
    """What a past forecast said of the day that followed it, and what came (NaN where nobody looked); jobs per step."""

    p10: Floats
    p50: Floats
    p90: Floats
    came: Floats


@dataclass(frozen=True, slots=True)
class Trial:
    """Of so many past days, with the floors and with the base: the share of the jobs that would have been late, and worker hours."""

    days: int
    late_share: float
    worker_hours: float
    base_late_share: float
    base_worker_hours: float


def tried(past: Sequence[PastDay], *, step_s: float, terms: Terms) -> Trial:
    """The trial over those of the days on which any job came."""
    days, jobs = 0, 0.0
    sums = np.zeros(4)
    for day in past:
        known = ~np.isnan(day.came)
        if day.came[known].sum() <= 0:
            continue
        drawn = floor.plan(np.stack([day.p10, day.p50, day.p90], axis=1), step_s=step_s, terms=terms).floors
        sums += [part for floors in (drawn, [terms.base] * len(drawn)) for part in floor.outcome(day.came, floors, step_s=step_s, terms=terms)]
        jobs += float(day.came[known].sum())
        days += 1
    if not days:
        return Trial(0, 0.0, 0.0, 0.0, 0.0)
    return Trial(days, sums[0] / jobs, float(sums[1]), sums[2] / jobs, float(sums[3]))


def judge(verdict: Verdict, trial: Trial, terms: Terms) -> Verdict:
    """Whether the forecast may move the floor. `verdict` is what its error says of it.

    Where the floor may go below the base, its record decides: floors that kept the target for fewer worker hours are used, however large the
    error, and floors that did not keep it are not, however small. Elsewhere, and before there is a record, the error decides.
    """
    if not trial.days or terms.least >= terms.base:
        return verdict
    on = f"On {trial.days} past {'day' if trial.days == 1 else 'days'} its floor would have"
    share = f"{trial.late_share:.1%}" if trial.late_share < 0.1 else f"{trial.late_share:.0%}"
    if trial.late_share > max(1.0 - terms.target_share, AS_GOOD * trial.base_late_share):
        return Verdict(False, f"{on} let {share} of the jobs wait too long: the base stands.")
    if trial.worker_hours < trial.base_worker_hours:
        return Verdict(True, f"{on} cost {trial.worker_hours:,.0f} worker hours instead of {trial.base_worker_hours:,.0f}, with {share} of the jobs late.")
    return verdict
