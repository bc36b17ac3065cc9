"""What a pool has measured by a given moment: job times from jobs that have ended, cold starts from workers that became ready.

As `fleet.job_times` does for a live pool: the last 1,000 jobs, the last 50 starts. Sums move with the window, so that a look costs
the same however long the simulation has run.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from fleet.simulation.outcome import Floats
from fleet.sizing.seen import ColdStart, JobTime

JOBS = 1000
STARTS = 50


class JobTimes:
    """Job times per kind, from jobs that have ended. A kind never measured counts as the average of all."""

    def __init__(self, service: Floats, kinds: list[int] | None) -> None:
        self.service = service
        self.kinds = np.asarray(kinds, dtype=np.int64) if kinds is not None else None
        self.count = int(self.kinds.max()) + 1 if self.kinds is not None and len(self.kinds) else 1
        self._running = np.zeros(0, dtype=np.int64)
        self._ends = np.zeros(0)
        self._window: deque[Floats] = deque()
        """Per look: count, sum and sum of squares by kind, a row each."""
        self._sums = np.zeros((3, self.count))
        self._total = 0.0
        self.all = JobTime()
        self._by_kind: list[JobTime] = [self.all] * self.count

    def look(self, now: float, first: int, ends: list[float]) -> None:
        """Jobs `first` onwards have started since the last look and end at `ends`. Only those that have ended by `now` are learned from."""
        if ends:
            self._running = np.concatenate((self._running, np.arange(first, first + len(ends))))
            self._ends = np.concatenate((self._ends, ends))
        if not len(self._ends):
            return
        over = self._ends <= now
        if not over.any():
            return
        ended = self._running[over]
        self._running, self._ends = self._running[~over], self._ends[~over]
        took = self.service[ended]
        of = self.kinds[ended] if self.kinds is not None else None
        if of is None:
            row = np.array([[len(took)], [took.sum()], [np.dot(took, took)]], dtype=np.float64)
        else:
            row = np.stack([np.bincount(of, weights=w, minlength=self.count) for w in (np.ones_like(took), took, took * took)])
        self._window.append(row)
        self._sums = self._sums + row
        self._total += len(took)
        while len(self._window) > 1 and self._total - self._window[0][0].sum() >= JOBS:
            old = self._window.popleft()
            self._sums = self._sums - old
            self._total -= old[0].sum()
        self.all = _spread(*(float(x) for x in self._sums.sum(axis=1)))
        if self.kinds is not None:
            self._by_kind = [_spread(n, s, q) if n >= 1 else self.all for n, s, q in self._sums.T.tolist()]

    def waiting(self, first: int, after: int) -> tuple[JobTime, float]:
        """The mix of the jobs from `first` to before `after`, and the seconds of one worker they need."""
        if self.kinds is None or after <= first:
            return self.all, (after - first) * self.all.mean_s
        counts = np.bincount(self.kinds[first:after], minlength=self.count).tolist()
        mean = square = samples = 0.0
        for count, of in zip(counts, self._by_kind, strict=True):
            mean += count * of.mean_s
            square += count * of.mean_s**2 * (1 + of.cv2)
            samples += of.samples if count else 0
        work, total = mean, after - first
        mean, square = mean / total, square / total
        return JobTime(mean, max(0.0, square / mean**2 - 1), int(samples)), work


class ColdStarts:
    """The last cold starts."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=STARTS)
        self.seen = ColdStart()

    def add(self, took: float) -> None:
        self._took.append(took)
        ordered = sorted(self._took)
        n = len(ordered)
        self.seen = ColdStart(ordered[n // 2], ordered[min(n - 1, int(n * 0.9))], n)


def _spread(count: float, total: float, squares: float) -> JobTime:
    mean = total / count
    if mean < 0.001:
        return JobTime(0.001, 0.0, int(count))
    variance = max(0.0, squares - count * mean * mean) / (count - 1) if count > 1.5 else mean * mean
    return JobTime(mean, variance / (mean * mean), int(count))
