"""Ranges from how far past forecasts were off: split conformal prediction (Vovk et al.; Lei et al., 2018) on roots, with local scales.

A residual is the difference of roots, divided by the usual size of residuals in its hours of the day and on its day ahead; the pool of all
divided residuals gives the quantiles. Bounds are kept in order and never below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fleet.forecasting.series import Floats

FEWEST = 20
"""Residuals below which the normal distribution helps out."""
SHRINK = 12.0
"""How many residuals of the whole pool speak in an hour's scale."""
BUCKETS = 12
"""Hours of the day are taken two by two."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Differences of roots, came minus said, each with the bucket of its hour and its day ahead (from 0)."""

    off: Floats
    bucket: Floats
    ahead: Floats


def residuals(rows: Sequence[tuple[Floats, Floats, int]], *, per_day: int) -> Residuals:
    """From (said, came, slot of the week of the first step) rows. Unknown steps are left out."""
    off, bucket, ahead = [], [], []
    for said, came, slot in rows:
        known = np.flatnonzero(~np.isnan(came))
        off.append(np.sqrt(came[known]) - np.sqrt(said[known]))
        bucket.append(buckets(slot, len(said), per_day)[known])
        ahead.append(known // per_day)
    if not off:
        empty = np.zeros(0)
        return Residuals(empty, empty, empty)
    return Residuals(*(np.concatenate(part).astype(np.float64) for part in (off, bucket, ahead)))


def buckets(slot: int, steps: int, per_day: int) -> Floats:
    """The bucket of the day of each step."""
    return (((slot + np.arange(steps)) % per_day) * BUCKETS // per_day).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Spread:
    """How far reality strays, ready to be put around a forecast."""

    scale: Floats
    """Per bucket, in roots."""
    wider: Floats
    """Per day ahead, from 1.0 on."""
    pool: Floats
    """Divided residuals, sorted."""

    def bounds(self, said: Floats, q: float, *, slot: int, per_day: int) -> Floats:
        """The quantile `q` of each step of a forecast that begins at `slot` of the week."""
        where = buckets(slot, len(said), per_day).astype(np.int64)
        ahead = np.minimum(np.arange(len(said)) // per_day, len(self.wider) - 1)
        at = np.sqrt(said) + self.quantile(q) * self.scale[where] * self.wider[ahead]
        return np.square(np.maximum(at, 0.0))

    def quantile(self, q: float) -> float:
        """Of the divided residuals; beyond what they can say, the normal tail that fits them."""
        n = len(self.pool)
        normal = NormalDist().inv_cdf(q)
        if n < FEWEST:
            return normal
        inside = min(max(q, 1.0 / (n + 1)), n / (n + 1))
        found = float(np.quantile(self.pool, min(1.0, max(0.0, (inside * (n + 1) - 0.5) / n))))
        if 0.1 <= q <= 0.9:
            return found
        edge = 0.9 if q > 0.5 else 0.1
        tail = float(np.quantile(self.pool, edge)) * normal / NormalDist().inv_cdf(edge)
        return max(found, min(tail, 3 * normal)) if q > 0.5 else min(found, max(tail, 3 * normal))


def spread(found: Residuals, *, per_day: int, days: int, usual: float, width: float = 1.0) -> Spread:
    """From residuals, for forecasts `days` long. `usual` is the size of a residual, in roots, to go by where there are none;
    `width` widens or narrows every range."""
    n = len(found.off)
    scale = np.full(BUCKETS, max(usual, 1e-9))
    wider = np.ones(max(1, days))
    if n < FEWEST:
        return Spread(scale * width, np.sqrt(1.0 + np.arange(len(wider)) / 3.0), np.zeros(0))
    size = np.abs(found.off)
    first = size[found.ahead == 0]
    overall = float(first.mean()) if len(first) else float(size.mean())
    floor = max(overall, 1e-9)
    for b in range(BUCKETS):
        weight = np.where(found.bucket == b, 1.0, np.where(np.isin(found.bucket, [(b - 1) % BUCKETS, (b + 1) % BUCKETS]), 0.5, 0.0)) * (found.ahead == 0)
        scale[b] = (np.dot(weight, size) + SHRINK * floor) / (weight.sum() + SHRINK)
    scale = np.maximum(scale, 0.15 * floor)
    for day in range(1, len(wider)):
        these = size[found.ahead == day]
        grown = float(these.mean()) / floor if len(these) >= FEWEST else wider[day - 1] * 1.05
        wider[day] = min(3.0, max(wider[day - 1], grown))
    divided = found.off / (scale[found.bucket.astype(np.int64)] * wider[np.minimum(found.ahead.astype(np.int64), len(wider) - 1)])
    return Spread(scale * width, wider, np.sort(divided))
