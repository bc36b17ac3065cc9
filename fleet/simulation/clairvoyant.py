"""What a pool could have cost with the future known: a bound to hold policies against, not a policy.

The queue is taken as a fluid of work. Going back in time over steps, the cheapest continuation is kept for every number of ready
workers and every backlog; a worker more costs its cold start, paid before it is ready, which hindsight orders in time; jobs that come
while the backlog is longer than the target count as late, at a price. Raising the price until few enough are late gives `lower`, the
Lagrangian dual of that fluid model: an estimate from below, not a proof, since the backlog lies on a grid and the fluid ignores that a
job occupies one worker. `achieved` is the cheapest such plan that meets the target when the simulator plays it job by job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fleet.simulation.outcome import Floats, Outcome
from fleet.simulation.pool import simulate
from fleet.sizing.seen import Memory, Proposal, Seen

BACKLOGS = 160
"""Points of the backlog grid, closer together where the backlog is short."""
Plan = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bound:
    """GPU-hours: an estimate of the least possible, and the least that a plan known in advance reached (None when none met the target)."""

    lower_hours: float
    achieved: Outcome | None


@dataclass(frozen=True)
class Planned:
    """Follows a plan of ready workers, ordered a cold start ahead."""

    name: ClassVar[str] = "plan"
    plan: Plan
    step_s: float
    cold_s: float
    start_s: float

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        def at(moment: float) -> int:
            return int(self.plan[min(len(self.plan) - 1, max(0, int((moment - self.start_s) / self.step_s)))])

        # A worker that leaves now and is wanted again within a start would only be paid for twice.
        return Proposal(max(at(seen.now_s), at(seen.now_s + self.cold_s)), "As planned.", "plan")


def bound(
    arrivals: Floats,
    service: Floats,
    *,
    base: int,
    maximum: int,
    cold_start_s: float,
    target_s: float,
    target_share: float,
    until_s: float,
    step_s: float = 30.0,
    rounds: int = 9,
) -> Bound:
    """The bound for jobs from second 0 to `until_s`. Takes seconds for a fleet of 64 and a day."""
    steps = max(1, int(np.ceil(until_s / step_s)))
    place = np.minimum((arrivals / step_s).astype(np.int64), steps - 1)
    work = np.bincount(place, weights=service, minlength=steps).astype(np.float64)
    jobs = np.bincount(place, minlength=steps).astype(np.float64)
    allowed = (1 - target_share) * len(arrivals)
    lower, best = 0.0, None
    for goal in (target_s, 0.75 * target_s, 0.5 * target_s):
        low, high = 0.0, 3.0e5 / max(1.0, allowed) * 10
        for _ in range(rounds):
            price = np.sqrt(max(low, high * 1e-4) * high)
            cost, plan = _plan(work, jobs, base=base, maximum=maximum, cold_s=cold_start_s, target_s=goal, step_s=step_s, price=float(price))
            if goal == target_s:
                lower = max(lower, (cost - price * allowed) / 3600)
            policy = Planned(plan, step_s, cold_start_s, 0.0)
            found = simulate(
                arrivals,
                service,
                policy=policy,
                base=base,
                maximum=maximum,
                cold_start_s=cold_start_s,
                target_s=target_s,
                target_share=target_share,
                until_s=until_s,
            )
            if found.within >= target_share:
                high = price
                if best is None or found.gpu_hours < best.gpu_hours:
                    best = found
            else:
                low = price
    return Bound(lower, best)


def _plan(work: Floats, jobs: Floats, *, base: int, maximum: int, cold_s: float, target_s: float, step_s: float, price: float) -> tuple[float, Plan]:
    """Least cost in worker-seconds with late jobs at `price` each, and the workers ready in each step."""
    sizes = np.arange(base, maximum + 1, dtype=np.float64)
    n = len(sizes)
    top = max(maximum * target_s * 4.0, float(work.max(initial=0.0)) * 2, 1.0)
    grid = top * np.linspace(0, 1, BACKLOGS) ** 2
    value = np.zeros((n, BACKLOGS))
    chosen = np.zeros((len(work), n, BACKLOGS), dtype=np.int16)
    paid = (sizes * step_s)[:, None]
    late_from = (sizes * target_s)[:, None]
    rows = np.arange(n)[:, None]
    for k in range(len(work) - 1, -1, -1):
        after = np.minimum(np.maximum(0.0, grid[None, :] + work[k] - paid), top)
        spot = np.sqrt(after / top) * (BACKLOGS - 1)
        left = np.minimum(spot.astype(np.int64), BACKLOGS - 2)
        share = (after - grid[left]) / (grid[left + 1] - grid[left])
        onward = value[rows, left] * (1 - share) + value[rows, left + 1] * share
        here = paid + onward
        if jobs[k]:
            here = here + price * jobs[k] * ((grid[None, :] + after) / 2 > late_from)
        # Fewer workers cost nothing, more cost their start: the best of each side, from running minima.
        fewer = np.minimum.accumulate(here, axis=0)
        raised = here + sizes[:, None] * cold_s
        more = np.minimum.accumulate(raised[::-1], axis=0)[::-1] - sizes[:, None] * cold_s
        value = np.minimum(fewer, more)
        fewer_at = np.maximum.accumulate(np.where(here <= fewer, rows, 0), axis=0)
        more_at = np.minimum.accumulate(np.where(raised <= more + sizes[:, None] * cold_s + 1e-9, rows, n)[::-1], axis=0)[::-1]
        chosen[k] = np.where(fewer <= more, fewer_at, more_at)
    plan = np.zeros(len(work), dtype=np.int64)
    at, backlog = 0, 0.0
    for k in range(len(work)):
        spot_k = int(np.clip(np.rint(np.sqrt(min(backlog, top) / top) * (BACKLOGS - 1)), 0, BACKLOGS - 1))
        at = int(chosen[k, at, spot_k])
        plan[k] = int(sizes[at])
        backlog = max(0.0, backlog + work[k] - sizes[at] * step_s)
    return float(value[0, 0]), plan
