"""The default: enough workers that the stated share of jobs starts within the target, from what jobs really take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen
from fleet.sizing.words import jobs, seconds, workers


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """Offered work plus a margin, plus what clears the backlog in time; fewer after the need has been lower for `hold_s`."""

    name: ClassVar[str] = "wait-target"
    margin: float = 0.4
    hold_s: float = 180.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        offered = max(seen.rate_1m, seen.rate_5m) * seen.job.mean_s
        steady = math.ceil(offered + self.margin * math.sqrt(offered))
        rest = seen.waiting_work_s - seen.live * seen.target_s
        backlog = math.ceil(rest / max(2 * seen.target_s, 60.0)) if rest > 0 else 0
        need = max(seen.base, steady + backlog)
        terms = {"offered": offered, "steady": steady, "backlog": backlog}
        live = seen.live
        if need > live:
            return Proposal(need, f"{jobs(seen.queue or 0)} and {offered:.1f} workers' worth of work arrives: {workers(need)} are needed.", "steady", terms)
        leaving = sum(1 for s in seen.idle_s if s >= self.hold_s)
        if need < live and leaving:
            size = max(need, live - leaving)
            return Proposal(size, f"{workers(need)} would do, and {workers(leaving)} had nothing to do for {seconds(self.hold_s)}.", "idle", terms)
        return Proposal(live, f"{workers(live)} for {offered:.1f} workers' worth of work: nothing to change.", "steady", terms)
