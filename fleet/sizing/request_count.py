"""A worker for so many jobs in the system, waiting or running; fewer only after the need has been lower for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen
from fleet.sizing.words import jobs, workers


@dataclass(frozen=True, slots=True)
class RequestCount:
    """ceil((waiting + running) / per_worker); an idle worker leaves after `idle_s` without need for it."""

    name: ClassVar[str] = "request-count"
    per_worker: float = 2.0
    idle_s: float = 60.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        inside = (seen.queue or 0) + seen.busy
        need = max(seen.base, math.ceil(inside / self.per_worker))
        live = seen.live
        terms = {"in_system": inside, "need": need}
        if need > live:
            return Proposal(need, f"{jobs(inside, 'is', 'are')} waiting or running: {workers(need)} for {self.per_worker:g} each.", "count", terms)
        if need < live:
            leaving = sum(1 for s in seen.idle_s if s >= self.idle_s)
            if leaving:
                size = max(need, live - leaving)
                return Proposal(size, f"{workers(need)} would do, and {workers(leaving)} had nothing to do for {self.idle_s:g} s.", "idle", terms)
        return Proposal(live, f"{jobs(inside, 'is', 'are')} waiting or running for {workers(live)}: nothing to change.", "steady", terms)
