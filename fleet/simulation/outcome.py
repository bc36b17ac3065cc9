"""What came of a simulated stretch: waits, workers paid for, and what was done to the size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sample = tuple[float, int, int, int, int]
"""Seconds, workers ready, workers coming, jobs waiting, size wanted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Sums over one simulated stretch. Waits run from a job's arrival to its start, in seconds; every arrived job counts."""

    jobs: int
    within: float
    """Share of the jobs that started within the wait target; 1.0 when there were none."""
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    gpu_hours: float
    cost_microusd: int
    ups: int
    """Steps that ordered workers."""
    downs: int
    """Steps that let workers leave."""
    launches: int
    """Workers ordered."""
    busy_stops: int
    """Workers told to leave while at work. Zero for every policy offered to pools."""
    peak: int
    """Most workers that were paid for at once."""
    samples: list[Sample]
    unserved: int = 0
    """Jobs that had not started when the simulation gave up."""
    wait_mean_s: float = 0.0
    busy_hours: float = 0.0
    """Hours of the paid ones in which a job ran."""
    hours: float = 0.0
    """Length of the stretch."""
    waits: Floats = field(default_factory=lambda: np.zeros(0))
    """Wait of every job in order of arrival."""

    def within_s(self, seconds: float) -> float:
        """Share of the jobs that waited no longer than so many seconds."""
        return float((self.waits <= seconds + EPSILON).mean()) if self.jobs else 1.0

    def as_json(self) -> Mapping[str, Any]:
        """The sums as plain JSON, without the samples and the single waits."""
        return {
            "jobs": self.jobs,
            "hours": round(self.hours, 4),
            "within": round(self.within, 6),
            "wait_mean_s": _round(self.wait_mean_s),
            "wait_p50_s": _round(self.wait_p50_s),
            "wait_p95_s": _round(self.wait_p95_s),
            "wait_p99_s": _round(self.wait_p99_s),
            "gpu_hours": round(self.gpu_hours, 4),
            "busy_hours": round(self.busy_hours, 4),
            "cost_microusd": self.cost_microusd,
            "ups": self.ups,
            "downs": self.downs,
            "launches": self.launches,
            "busy_stops": self.busy_stops,
            "peak": self.peak,
            "unserved": self.unserved,
        }


EPSILON = 1e-9
"""A job that arrives as a worker comes free waits for nothing, whatever the last bit says."""


def sum_up(waits: Floats, *, target_s: float, **rest: Any) -> Outcome:
    """An outcome from the waits and everything else that was counted."""
    if len(waits):
        p50, p95, p99 = (float(x) for x in np.percentile(waits, [50, 95, 99]))
        within, mean = float((waits <= target_s + EPSILON).mean()), float(waits.mean())
    else:
        p50 = p95 = p99 = mean = 0.0
        within = 1.0
    return Outcome(jobs=len(waits), within=within, wait_p50_s=p50, wait_p95_s=p95, wait_p99_s=p99, wait_mean_s=mean, waits=waits, **rest)


def _round(value: float) -> float:
    return round(value, 3)
