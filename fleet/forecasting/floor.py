"""From a forecast to a floor: how few workers may stand ready at each step so that the wait target holds over the whole plan at the least cost.

A reactive policy sizes above the floor and keeps workers for a while; a floor is worth its cost where that comes too late: before the first
job after a quiet time, at the foot of a steep rise, under bursts. Late jobs may be few over the plan, not in every hour of it, so the budget
of late jobs is spent where a floor would cost the most per job it saves: in hours that hardly anybody uses. The price of a late job that
makes the plan meet its budget is found by bisection (Lagrange relaxation of a separable problem; each step alone is solved exactly).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleet.forecasting.series import Floats

POINTS = ((0.3, 0), (0.4, 1), (0.3, 2))
"""Swanson's rule: the weights of the 10th, 50th and 90th percentile that stand for the whole distribution."""
SPREAD = 2.0
"""A reactive policy holds about work + 2·√work workers: bursts order them, and they stay for the hold time (measured on several traces)."""
BURSTS = 0.06
"""Share of the jobs that come in bursts too large for one worker; half of it for each worker more."""
RISE = 1 / 6
"""Share of an hour in which the size is still the hour before's."""
DEAREST_HOURS = 1.5
"""Worker hours a job in time is worth at most: where a plan cannot meet its budget, it stops there."""
SPEND = 0.9
"""Share of the allowed late jobs that the plan spends; the rest is for what no forecast sees."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan has to go by. Times in seconds."""

    least: int
    """Lowest floor allowed: the pool's forecast_base, or its base."""
    base: int
    maximum: int
    target_s: float = 60.0
    target_share: float = 0.99
    cold_start_s: float = 90.0
    job_s: float = 30.0
    hold_s: float = 180.0
    """How long a worker without work is kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A floor per step."""

    floors: tuple[int, ...]
    price: float
    """Worker hours that a job in time was worth."""
    late_share: float
    """Of the jobs, how many are expected to wait too long."""
    worker_hours: float
    """Expected, with what the reactive policy adds."""


def plan(jobs: ArrayLike, *, step_s: float, terms: Terms) -> Plan:
    """The cheapest floors. `jobs` holds a row per step: 10th, 50th and 90th percentile of the jobs that arrive in it.

    Raises ValueError when the table is not three columns wide or the bounds are out of order.
    """
    table = np.asarray(jobs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 3:
        raise ValueError("jobs must have three columns: 10th, 50th and 90th percentile")
    if not 0 <= terms.least <= terms.base <= terms.maximum:
        raise ValueError("least, base and maximum must be in that order")
    if not len(table):
        return Plan((), 0.0, 0.0, 0.0)
    hourly = np.maximum(np.nan_to_num(table), 0.0) * 3600.0 / step_s
    sizes = _sizes(float(reactive(hourly.max() * terms.job_s / 3600.0)), terms)
    late, cost = _tables(hourly, sizes, terms)
    coming = float(sum(weight * hourly[:, column].sum() for weight, column in POINTS))
    allowed = (1.0 - terms.target_share) * SPEND * coming
    steps = np.arange(len(table))

    def best(price: float) -> np.ndarray:
        return np.asarray(np.argmin(cost + price * late, axis=1))

    low, high = 0.0, DEAREST_HOURS
    chosen = best(high)
    if late[steps, chosen].sum() <= allowed:
        for _ in range(30):
            middle = (low + high) / 2
            tried = best(middle)
            if late[steps, tried].sum() <= allowed:
                high, chosen = middle, tried
            else:
                low = middle
    work = hourly[:, 0] * terms.job_s / 3600.0
    floors = [max(int(sizes[i]), min(terms.maximum, int(sure))) for i, sure in zip(chosen, work, strict=True)]
    return Plan(
        tuple(early(floors, step_s=step_s, lead_s=terms.cold_start_s)),
        high,
        float(late[steps, chosen].sum() / coming) if coming > 0 else 0.0,
        float(cost[steps, chosen].sum() * step_s / 3600.0),
    )


def outcome(came: ArrayLike, floors: Sequence[int], *, step_s: float, terms: Terms) -> tuple[float, float]:
    """Late jobs and worker hours of these floors, expected of a reactive policy above them with so many jobs a step. Unknown steps (NaN) are left out."""
    known = ~np.isnan(np.asarray(came, dtype=np.float64))
    jobs = np.nan_to_num(np.asarray(came, dtype=np.float64))[:, None] * 3600.0 / step_s
    held = reactive(jobs * terms.job_s / 3600.0)
    late, cost = _expected(jobs, np.asarray(floors, dtype=np.float64)[:, None], held, np.r_[held[:1], held[:-1]], terms)
    return float(late[known].sum() * step_s / 3600.0), float(cost[known].sum() * step_s / 3600.0)


def early(floors: Sequence[int], *, step_s: float, lead_s: float) -> list[int]:
    """Floors that are reached a cold start before they are needed, for steps shorter than that; longer steps are read ahead (`at`)."""
    ahead = int(lead_s // step_s)
    return [max(floors[i : i + 1 + ahead]) for i in range(len(floors))]


def at(floors: Sequence[int], *, into_s: float, step_s: float, lead_s: float) -> int | None:
    """The floor in force `into_s` seconds after the plan's begin: this step's or, a cold start before it begins, the next one's if higher.

    None outside the plan.
    """
    now = int(into_s // step_s)
    if into_s < 0 or now >= len(floors):
        return None
    soon = min(len(floors) - 1, int((into_s + lead_s) // step_s))
    return max(floors[now : soon + 1])


def reactive(work: Floats | float) -> Floats:
    """Workers that a reactive policy holds on average for so many workers' worth of work."""
    return np.asarray(work + SPREAD * np.sqrt(work), dtype=np.float64)


def _sizes(most: float, terms: Terms) -> np.ndarray:
    """The floors to choose from: every size up to what the largest hour needs, thinned out where there are hundreds."""
    top = max(terms.base, min(terms.maximum, int(np.ceil(most))))
    step = max(1, (top - terms.least) // 64)
    return np.unique(np.r_[np.arange(terms.least, top + 1, step), top])


def _tables(hourly: Floats, sizes: np.ndarray, terms: Terms) -> tuple[Floats, Floats]:
    """Late jobs an hour and workers paid, expected for each step and floor."""
    late = np.zeros((len(hourly), len(sizes)))
    cost = np.zeros_like(late)
    middle = hourly[:, 1]
    before = np.r_[middle[0], middle[:-1]]
    held_before = reactive(before * terms.job_s / 3600.0)[:, None]
    floors = np.asarray(sizes, dtype=np.float64)[None, :]
    for weight, column in POINTS:
        jobs = hourly[:, column][:, None]
        some_late, some_cost = _expected(jobs, floors, reactive(jobs * terms.job_s / 3600.0), held_before, terms)
        late += weight * some_late
        cost += weight * some_cost
    return late, cost


def _expected(jobs: Floats, floors: Floats, held: Floats, held_before: Floats, terms: Terms) -> tuple[Floats, Floats]:
    """Late jobs an hour and workers paid where a reactive policy holds `held` workers, and held so many the hour before."""
    late = (1 - RISE) * _late(jobs, floors, held, terms) + RISE * _late(jobs, floors, np.minimum(held, held_before), terms)
    paid = (np.maximum(floors, np.minimum(0.4 * held, terms.maximum)) + np.maximum(floors, np.minimum(1.6 * held, terms.maximum))) / 2
    return late, paid


def _late(jobs: Floats, floors: Floats, held: Floats, terms: Terms) -> Floats:
    """Late jobs an hour: those that find no worker at all and need longer than the target to get one, and those in bursts."""
    kept = (terms.hold_s + terms.job_s) / 3600.0
    waits = min(1.0, max(0.0, (terms.cold_start_s - terms.target_s) / max(terms.cold_start_s, 1.0) + 0.35)) if terms.cold_start_s > terms.target_s else 0.0
    nobody = np.where(floors < 1, waits * np.exp(-jobs * kept), 0.0)
    size = np.maximum(floors, held)
    short = np.maximum(jobs * terms.job_s / 3600.0 - size, 0.0) / np.maximum(jobs * terms.job_s / 3600.0, 1e-9)
    return jobs * np.minimum(1.0, nobody + BURSTS * 0.5**size + 0.5 * short)
