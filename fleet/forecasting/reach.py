"""When a forecast meets a pool's maximum: on which hour of the coming days, and in which of the coming weeks if demand goes on growing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.forecasting.series import WEEK_DAYS, Floats

LEAST_WEEKS = 3
MOST_WEEKS = 8
FURTHEST_WEEKS = 26
REAL_GROWTH = 0.01
"""A week; less is none."""


def needed(work: float, *, job_s: float, target_s: float, target_share: float) -> int:
    """Fewest workers with which that share of the jobs starts within `target_s` at a steady `work` (in workers' worth).

    Erlang C by the stable recursion of Erlang B; from 2,000 workers on by its square root law.
    """
    if work <= 0 or not math.isfinite(work):
        return 0
    if work > 2000:
        return math.ceil(work + math.sqrt(work))
    blocked, size = 1.0, 0
    while True:
        size += 1
        blocked = work * blocked / (size + work * blocked)
        if size <= work:
            continue
        waits = blocked / (1 - work / size * (1 - blocked))
        if waits * math.exp(-(size - work) * target_s / max(job_s, 1e-3)) <= 1 - target_share:
            return size


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the forecast on which the maximum is, or may be, reached."""

    step: int
    """Of its peak."""
    first: int
    """The first step at which the maximum does not suffice."""
    low: int
    """Workers needed at the peak: at the 10th and at the 90th percentile of the demand."""
    high: int
    middle: int
    sure: bool
    """Whether the middle of the forecast needs more than the maximum, not only its upper edge."""
    raise_to: int
    extra_hours: float
    """Worker hours more that day with that maximum."""


def days(points: Sequence[Sequence[float]], *, step_s: float, offset_s: float, maximum: int, job_s: float, target_s: float, target_share: float) -> list[Day]:
    """The days on which the maximum is reached, in order. `points` are [p50, p10, p90, …] in workers' worth; `offset_s` seconds into its day of the first."""
    sizes = [tuple(needed(point[i], job_s=job_s, target_s=target_s, target_share=target_share) for i in (0, 1, 2)) for point in points if len(point) >= 3]
    by_day: dict[int, list[int]] = {}
    for i in range(len(sizes)):
        by_day.setdefault(int((offset_s + i * step_s) // 86_400), []).append(i)
    found = []
    for steps in by_day.values():
        short = [i for i in steps if sizes[i][0] > maximum] or [i for i in steps if sizes[i][2] > maximum and sizes[i][0] >= 0.8 * maximum]
        if not short:
            continue
        peak = max(short, key=lambda i: sizes[i][0])
        middle, low, high = sizes[peak]
        new = max(maximum + 1, math.ceil((middle + high) / 2))
        more = sum(max(0, min(max(sizes[i][0], maximum + 1 if i == peak else 0), new) - maximum) for i in steps) * step_s / 3600
        found.append(Day(peak, short[0], low, high, middle, middle > maximum, new, more))
    return found


@dataclass(frozen=True, slots=True)
class Growth:
    """How demand has grown a week over the last weeks: the middle, and a range that holds 80 % of the time."""

    weekly: float
    low: float
    high: float
    weeks: int


def growth(hourly: Floats, *, per_day: int) -> Growth | None:
    """From the totals of the last whole weeks (3 to 8), a line through their logarithms. None with fewer, or where a week had no demand."""
    week = per_day * WEEK_DAYS
    count = min(MOST_WEEKS, len(hourly) // week)
    if count < LEAST_WEEKS:
        return None
    totals = np.nansum(hourly[len(hourly) - count * week :].reshape(count, week), axis=1)
    if (totals <= 0).any():
        return None
    at = np.arange(count) - (count - 1) / 2
    slope = float(np.dot(at, np.log(totals)) / np.dot(at, at))
    rest = np.log(totals) - np.log(totals).mean() - slope * at
    error = math.sqrt(float(np.dot(rest, rest)) / max(1, count - 2) / float(np.dot(at, at)))
    wide = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440)[min(count - 3, 5)] * error  # Student's t, 90 %, count - 2 degrees of freedom
    return Growth(math.expm1(slope), math.expm1(slope - wide), math.expm1(slope + wide), count)


def weeks_until(peak: float, grown: Growth, *, maximum: int, job_s: float, target_s: float, target_share: float) -> tuple[int, int, int | None] | None:
    """In how many weeks the weekly peak (workers' worth) needs more than the maximum: (middle, earliest, latest).

    The latest is None when the lower growth never gets there within half a year. None altogether when the middle does not, or growth is not real.
    """
    if grown.low <= 0 or grown.weekly < REAL_GROWTH:
        return None

    def week(rate: float) -> int | None:
        for ahead in range(1, FURTHEST_WEEKS + 1):
            if needed(peak * (1 + rate) ** ahead, job_s=job_s, target_s=target_s, target_share=target_share) > maximum:
                return ahead
        return None

    middle, early = week(grown.weekly), week(grown.high)
    return None if middle is None or early is None else (middle, early, week(grown.low))
