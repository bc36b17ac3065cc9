"""How fast a pool is simulated with the default policy, and how much of that is the queue alone.

Jobs a second over one day of a fleet of 512 (800,000 jobs, a decision every 15 s), against a plain loop over the same jobs that
only keeps when each of a fixed number of workers comes free, with no policy, no observation and no books: the ratio says what
everything beside the queue costs.

    python bench/simulator.py [--jobs 800000]
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from fleet.simulation import simulate
from fleet.sizing import policies

GOAL = 200_000


def day(jobs: int) -> tuple[np.ndarray, np.ndarray]:
    """A day whose rate swings fourfold, with bursts; log-normal job times of 27 s."""
    random = np.random.default_rng(1)
    at = np.sort(random.uniform(0, 86_400, 4 * jobs))
    rate = 0.625 - 0.375 * np.cos(2 * np.pi * at / 86_400) + 0.2 * (random.random(96)[(at / 900).astype(int)] > 0.9)
    kept = at[random.random(len(at)) < rate][: 4 * jobs]
    kept = np.sort(random.choice(kept, jobs, replace=False))
    return kept, random.lognormal(np.log(27) - 0.35, 0.83, jobs)


def plain(arrivals: list[float], service: list[float], workers: int) -> float:
    free = [0.0] * workers
    waited = 0.0
    for at, took in zip(arrivals, service, strict=True):
        start = free[0] if free[0] > at else at
        heapq.heapreplace(free, start + took)
        waited += start - at
    return waited


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--jobs", type=int, default=800_000)
    jobs = asked.parse_args().jobs
    arrivals, service = day(jobs)
    listed = arrivals.tolist(), service.tolist()
    began = time.process_time()
    plain(*listed, workers=400)
    loop = time.process_time() - began
    print(f"plain loop, 400 workers      {jobs / loop:>12,.0f} jobs/s")
    for name in policies.POLICIES:
        began = time.process_time()
        found = simulate(arrivals, service, policy=policies.make(name), base=16, maximum=512, cold_start_s=90, target_s=60)
        took = time.process_time() - began
        print(
            f"{name:<28} {jobs / took:>12,.0f} jobs/s  {took / loop:5.2f} x the plain loop  {len(found.samples):,} decisions, {found.gpu_hours:,.0f} GPU-h, {found.within:.2%}"
        )
        if name == policies.DEFAULT and jobs / took < GOAL:
            print(f"below the goal of {GOAL:,} jobs/s")
            sys.exit(1)


if __name__ == "__main__":
    main()
