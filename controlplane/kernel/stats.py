"""Durations summed up so that sums can be summed: a histogram whose buckets grow by a tenth.

Merging adds counts, so minutes make hours and workers make pools, in any order and with the same
result. A quantile is within 4.8 % of the true value (`RELATIVE_ERROR`), for values of a microsecond
and more; smaller ones count as zero. Count, sum (to the microsecond), least and greatest are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GROWTH = 1.1
RELATIVE_ERROR = (GROWTH - 1) / (GROWTH + 1)
SMALLEST = 1e-6
_MICRO = 1_000_000
_LOG = math.log(GROWTH)
_ZERO = -1_000_000  # the bucket of everything below SMALLEST; sorts before all others


@dataclass
class Histogram:
    """Counts by bucket: bucket i holds values in (GROWTH**(i-1), GROWTH**i]."""

    count: int = 0
    sum_micro: int = 0  # an integer, so that merging is exactly associative
    least: float | None = None
    greatest: float | None = None
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, n: int = 1) -> None:
        """Count `n` values; a negative one (clocks differ) counts as zero."""
        if not math.isfinite(seconds):
            raise ValueError(f"{seconds} is not a duration")
        if n < 0:
            raise ValueError("values are never taken back")
        if n == 0:
            return
        value = max(0.0, float(seconds))
        bucket = _bucket(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.count += n
        self.sum_micro += round(value * _MICRO) * n
        self.least = value if self.least is None else min(self.least, value)
        self.greatest = value if self.greatest is None else max(self.greatest, value)

    def merge(self, other: Histogram) -> Histogram:
        """Add everything `other` counted; gives this histogram back."""
        for bucket, n in list(other.buckets.items()):
            self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.count += other.count
        self.sum_micro += other.sum_micro
        self.least = min((x for x in (self.least, other.least) if x is not None), default=None)
        self.greatest = max((x for x in (self.greatest, other.greatest) if x is not None), default=None)
        return self

    def quantile(self, q: float) -> float | None:
        """The value at or below which a share `q` of all values lies (nearest rank); None when nothing was counted."""
        if not 0 <= q <= 1:
            raise ValueError(f"{q} is not a share")
        if self.count == 0 or self.least is None or self.greatest is None:
            return None
        rank = max(1, math.ceil(q * self.count))
        if rank == 1 or rank == self.count:
            return self.least if rank == 1 else self.greatest
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(max(_middle(bucket), self.least), self.greatest)
        return self.greatest

    def at_most(self, seconds: float) -> int:
        """How many values were at most `seconds`, to the precision of a bucket."""
        if self.greatest is not None and seconds >= self.greatest:
            return self.count
        return sum(n for bucket, n in self.buckets.items() if _middle(bucket) <= seconds)

    @property
    def sum(self) -> float:
        return self.sum_micro / _MICRO

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    @property
    def min(self) -> float | None:
        return self.least

    @property
    def max(self) -> float | None:
        return self.greatest

    def to_json(self) -> dict[str, Any]:
        """A compact dict: count, sum in micro-units, least, greatest, then bucket and count in turn."""
        if not self.count:
            return {}
        pairs = [number for bucket in sorted(self.buckets) for number in (bucket, self.buckets[bucket])]
        return {"n": self.count, "s": self.sum_micro, "lo": self.least, "hi": self.greatest, "b": pairs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Histogram:
        """What `to_json` gave; nothing gives an empty histogram."""
        if not data:
            return cls()
        pairs = data["b"]
        return cls(int(data["n"]), int(data["s"]), float(data["lo"]), float(data["hi"]), dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _bucket(value: float) -> int:
    return _ZERO if value < SMALLEST else math.ceil(math.log(value) / _LOG)


def _middle(bucket: int) -> float:
    """The value whose relative distance to both ends of the bucket is the same."""
    return 0.0 if bucket == _ZERO else 2 * GROWTH**bucket / (GROWTH + 1)
