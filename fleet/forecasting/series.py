"""A demand series on a regular grid, made from what was counted: gaps, the step that has only begun, and the day the level changed.

Values are demand per step and never negative; NaN is a step nobody knows anything of. Times are seconds since any midnight whose
weekday repeats every seven days: the epoch's, or a trace's second 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DAY_S = 86_400.0
WEEK_DAYS = 7
MOST_STEPS = 20_000
"""Of a series that is looked at: the newest so many steps. 60 days of 10 minutes are 8,640."""
FINEST_S = 300.0
"""Finer steps are taken together before anything is fitted: a forecast a day ahead knows nothing of single minutes."""
CHANGED_TIMES = 4.0
SETTLED_DAYS = 4
ASTRAY = 0.25


@dataclass(frozen=True, slots=True)
class Series:
    """Demand per step from `start_s` on."""

    values: Floats
    step_s: float
    start_s: float = 0.0

    @property
    def per_day(self) -> int:
        """Steps in a day, at least one."""
        return max(1, round(DAY_S / self.step_s))

    @property
    def end_s(self) -> float:
        """Of the last step: where a forecast begins."""
        return self.start_s + len(self.values) * self.step_s

    @property
    def days(self) -> float:
        return len(self.values) * self.step_s / DAY_S

    def since(self, index: int) -> Series:
        """Without the first `index` steps."""
        return Series(self.values[index:], self.step_s, self.start_s + index * self.step_s)


@dataclass(frozen=True, slots=True)
class History:
    """What is known: demand per step without holes, steps a day, and the step of the week at which it begins."""

    values: Floats
    per_day: int
    phase: int = 0

    @property
    def week(self) -> int:
        return self.per_day * WEEK_DAYS

    def __len__(self) -> int:
        return len(self.values)


def of(values: ArrayLike, *, step_s: float, start_s: float = 0.0) -> Series:
    """A series of plain values. Infinite values count as unknown, negative ones as zero; unknown steps at either end are left out.

    Raises ValueError when the step is not above zero or the values are not one row of numbers.
    """
    row = np.array(values, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError("values must be one row of numbers")
    if not (np.isfinite(step_s) and step_s > 0):
        raise ValueError("step_s must be above zero")
    row[~np.isfinite(row)] = np.nan
    row = np.where(row < 0, 0.0, row)
    known = np.flatnonzero(~np.isnan(row))
    if not len(known):
        return Series(np.zeros(0), float(step_s), float(start_s))
    first = max(int(known[0]), len(row) - MOST_STEPS)
    return Series(row[first : int(known[-1]) + 1], float(step_s), start_s + first * step_s)


def from_events(times: ArrayLike, *, step_s: float, weights: ArrayLike | None = None, start_s: float | None = None, until_s: float | None = None) -> Series:
    """Events (or what each weighs) counted per step, steps beginning at whole multiples of `step_s`. A step without events is zero.

    The last step is left out unless `until_s` says that it is over: half an hour's jobs are not an hour's.
    """
    at = np.asarray(times, dtype=np.float64)
    weigh = np.ones(len(at)) if weights is None else np.asarray(weights, dtype=np.float64)
    keep = np.isfinite(at) & np.isfinite(weigh)
    at, weigh = at[keep], weigh[keep]
    if not len(at) and (start_s is None or until_s is None):
        return Series(np.zeros(0), float(step_s), 0.0)
    first = int(np.floor((start_s if start_s is not None else float(at.min())) / step_s))
    end = int(np.floor((until_s if until_s is not None else float(at.max())) / step_s))
    first = max(first, end - MOST_STEPS)
    if end <= first:
        return Series(np.zeros(0), float(step_s), first * step_s)
    index = np.floor(at / step_s).astype(np.int64) - first
    inside = (index >= 0) & (index < end - first)
    return Series(np.bincount(index[inside], weights=weigh[inside], minlength=end - first).astype(np.float64), float(step_s), first * step_s)


def filled(values: Floats, per_day: int) -> Floats:
    """Unknown steps filled from the same slot a week or a day away, else from their neighbours."""
    row = np.array(values, dtype=np.float64)
    for lag in (WEEK_DAYS * per_day, -WEEK_DAYS * per_day, per_day, -per_day, 2 * per_day, -2 * per_day):
        holes = np.flatnonzero(np.isnan(row))
        if not len(holes):
            return row
        source = holes - lag
        ok = (source >= 0) & (source < len(row))
        row[holes[ok]] = values[source[ok]]
    holes = np.isnan(row)
    if holes.all():
        return np.zeros(len(row))
    if holes.any():
        row[holes] = np.interp(np.flatnonzero(holes), np.flatnonzero(~holes), row[~holes])
    return row


def coarse(series: Series) -> tuple[Series, int]:
    """The series in steps of at least five minutes (means of its own steps, the newest whole), and how many steps went into one."""
    times = max(1, int(np.ceil(FINEST_S / series.step_s - 1e-9)))
    if times == 1:
        return series, 1
    rest = len(series.values) % times
    blocks = series.values[rest:].reshape(-1, times)
    known = ~np.isnan(blocks)
    count = known.sum(axis=1)
    means = np.where(count > 0, np.where(known, blocks, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    return Series(means, series.step_s * times, series.start_s + rest * series.step_s), times


def settled(series: Series) -> tuple[Series, float | None]:
    """The part after the level last changed for good, and by how many times it did (None: it did not).

    A service that goes live makes the days before worthless. Whole days are compared in medians; a rise must be fourfold and some days old,
    a fall a week, with most days of both parts on their side of it, so that weekends, holidays and single spikes are none.
    """
    per_day = series.per_day
    days = len(series.values) // per_day
    if days < 2 * SETTLED_DAYS:
        return series, None
    start = len(series.values) - days * per_day
    totals = np.nansum(series.values[start:].reshape(days, per_day), axis=1)
    unit = max(float(totals.max()) * 0.01, 1e-12)
    level = np.log(totals + unit)
    best, found = 0.0, None
    for at in range(SETTLED_DAYS, days - SETTLED_DAYS + 1):
        before, after = level[:at], level[at:]
        shift = float(np.median(after) - np.median(before))
        if abs(shift) < np.log(CHANGED_TIMES) or (shift < 0 and len(after) < WEEK_DAYS):
            continue
        middle = (np.median(after) + np.median(before)) / 2
        low, high = (before, after) if shift > 0 else (after, before)
        astray = max(float((low > middle).mean()), float((high < middle).mean()))
        tight = 1.0 / (1e-9 + np.abs(before - np.median(before)).sum() + np.abs(after - np.median(after)).sum())
        if astray <= ASTRAY and tight > best:
            best, found = tight, (at, float(np.exp(shift)))
    if found is None:
        return series, None
    return series.since(start + found[0] * per_day), found[1]
