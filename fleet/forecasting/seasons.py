"""STL, a series taken apart into season, trend and rest by local regression (Cleveland et al., 1990), without outlier weights.

Linear in the series, so that its parts are convolutions and a few small matrices, which depend on lengths only and are kept. What it gives is
what statsmodels' `STL` gives, in a tenth of the time and without loading pandas for it. Several seasons one after the other: MSTL (Bandara et al., 2021).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from fleet.forecasting.series import Floats

ROUNDS = 5


def several(row: Floats, periods: tuple[int, ...]) -> tuple[list[Floats], Floats]:
    """A season per period, the shortest first, and what is left with its trend. The row must hold two of the longest."""
    rest = row
    found = []
    for i, period in enumerate(periods):
        season = stl(rest, period, window=7 + 4 * (i + 1))
        found.append(season)
        rest = rest - season
    return found, rest


def stl(row: Floats, period: int, *, window: int = 7) -> Floats:
    """The season of the row, as long as it. `window` cycles speak in each smoothed value of a slot. The row must hold two periods."""
    n = len(row)
    flat = _odd(math.ceil(1.5 * period / (1 - 1.5 / window)))
    trend = np.zeros(n)
    season = trend
    for _ in range(ROUNDS):
        cycles = _cycles(row - trend, period, window)
        low = smooth(_means(_means(_means(cycles, period), period), 3), _odd(period + 1))
        season = cycles[period : period + n] - low
        trend = smooth(row - season, flat)
    return season


def smooth(row: Floats, window: int) -> Floats:
    """Local lines through so many (odd) neighbours, fewer sided at the ends."""
    n = len(row)
    if window >= n:
        return _whole(n, window) @ row
    edge, middle = _edge(window)
    half = window // 2
    made = np.empty(n)
    made[half : n - half] = np.convolve(row, middle, "valid")
    made[:half] = edge @ row[:window]
    made[n - half :] = (edge @ row[: n - window - 1 : -1])[::-1]
    return made


def _cycles(row: Floats, period: int, window: int) -> Floats:
    """Each slot's values smoothed over the cycles, and continued by one cycle on either side."""
    n = len(row)
    made = np.empty(n + 2 * period)
    whole, more = divmod(n, period)
    for begin, end, count in ((0, more, whole + 1), (more, period, whole)):
        if end > begin:
            slots = np.arange(begin, end)
            places = slots[None, :] + period * np.arange(count)[:, None]
            made[slots[None, :] + period * np.arange(count + 2)[:, None]] = _continued(count, window) @ row[places]
    return made


def _means(row: Floats, length: int) -> Floats:
    sums = np.concatenate(([0.0], np.cumsum(row)))
    return (sums[length:] - sums[:-length]) / length


def _odd(value: int) -> int:
    return value + 1 - value % 2


@lru_cache(maxsize=64)
def _whole(n: int, window: int) -> Floats:
    return np.stack([_weights(float(i), 0, n, window) for i in range(n)])


@lru_cache(maxsize=64)
def _continued(n: int, window: int) -> Floats:
    """The rows of `_whole`, and one before and one after."""
    rows = []
    for at in range(-1, n + 1):
        begin = min(max(0, at - window // 2), max(0, n - window))
        row = np.zeros(n)
        end = min(n, begin + window)
        row[begin:end] = _weights(float(at), begin, end, window, n=n)
        rows.append(row)
    return np.stack(rows)


@lru_cache(maxsize=16)
def _edge(window: int) -> tuple[Floats, Floats]:
    """Of a row longer than the window: what its first values weigh in the first smoothed ones, and the weights inside."""
    half = window // 2
    return np.stack([_weights(float(i), 0, window, window) for i in range(half)]), _weights(float(half), 0, window, window)


def _weights(at: float, begin: int, end: int, window: int, *, n: int | None = None) -> Floats:
    """What the values from `begin` to `end` weigh in the local line's value at `at`."""
    n = end if n is None else n
    place = np.arange(begin, end, dtype=np.float64)
    reach = max(at - begin, end - 1 - at) + (max(0, window - n) // 2)
    far = np.abs(place - at)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(far > 0.999 * reach, 0.0, np.where(far > 0.001 * reach, (1 - (far / reach) ** 3) ** 3, 1.0))
    total = weight.sum()
    if total <= 0:
        return np.full(len(place), 1.0 / len(place))
    weight = weight / total
    middle = float(np.dot(weight, place))
    spread = float(np.dot(weight, (place - middle) ** 2))
    if math.sqrt(spread) > 0.001 * (n - 1):
        weight = weight * ((at - middle) / spread * (place - middle) + 1)
    return weight
