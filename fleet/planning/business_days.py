"""How long jobs wait on a fleet of fixed size, over ten days with a busy and a quiet part: the waits of a growth option. Pure."""

from __future__ import annotations

from fleet.planning.growth import Case, Waits
from fleet.sizing.threshold import Threshold

DAYS = 10
BUSINESS_H, PEAK_H = 10, 2
"""Hours of a day in which jobs come, and how many of them are the peak."""
MOST_JOBS = 40_000


def waits(case: Case, load: float, workers: float, capacity: float) -> Waits:
    """Waits with `load` (in today's workers, on average in business hours) on `workers` that together are worth `capacity` of today's.

    Peak hours carry the case's peak in proportion; the nights are empty, so what is left over in the evening is worked off then.
    """
    import numpy as np

    from fleet.simulation import simulate

    random = np.random.default_rng(6)
    count = max(1, round(workers))
    job_s = case.job_s * count / capacity
    peak = load * (case.peak / case.average if case.average > 0 else 1.0)
    quiet = max(0.0, (BUSINESS_H * load - PEAK_H * peak) / (BUSINESS_H - PEAK_H))
    days = max(1, min(DAYS, int(MOST_JOBS / max(1.0, BUSINESS_H * 3600 * load / case.job_s))))
    parts = []
    for day in range(days):
        for hour in range(BUSINESS_H):
            # Two peak hours in the middle of the day, as batches come.
            level = peak if BUSINESS_H // 2 - PEAK_H // 2 <= hour < BUSINESS_H // 2 + (PEAK_H + 1) // 2 else quiet
            n = min(int(random.poisson(level * 3600 / case.job_s)), MOST_JOBS)
            parts.append(day * 86400 + hour * 3600 + random.random(n) * 3600)
    came = np.sort(np.concatenate(parts))
    shape = 1 / max(case.cv2, 1e-3)
    took = random.gamma(shape, job_s / shape, size=len(came))
    found = simulate(came, took, policy=Threshold(), base=count, maximum=count, cold_start_s=60.0, target_s=case.target_s, tick_s=3600.0)
    return Waits(found.wait_p50_s, found.wait_p95_s, found.wait_p99_s, found.within)
