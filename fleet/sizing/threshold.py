"""The seed's rule, exact: more than a share of a job waiting per worker orders one more; a worker idle long enough leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen
from fleet.sizing.words import jobs, workers


@dataclass(frozen=True, slots=True)
class Threshold:
    """One worker at a time. Counts the coming ones as active, which the seed leaves open."""

    name: ClassVar[str] = "threshold"
    queue_per_worker: float = 0.8
    idle_s: float = 300.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        queue, live = seen.queue or 0, seen.live
        terms = {"queue": queue, "threshold": self.queue_per_worker * live}
        if queue > self.queue_per_worker * live:
            return Proposal(live + 1, f"{jobs(queue)} for {workers(live)}: more than {self.queue_per_worker:g} each.", "queue", terms)
        idle = max(seen.idle_s, default=0.0)
        if live > seen.base and seen.idle_s and idle >= self.idle_s:
            return Proposal(
                live - 1,
                f"A worker has been idle for {self.idle_s:g} s and the pool has {workers(live)}, {live - seen.base} more than its base.",
                "idle",
                terms,
            )
        if live == seen.base:
            return Proposal(live, f"{jobs(queue)} for {workers(live)}, the pool's base: nothing to change.", "steady", terms)
        return Proposal(live, f"{jobs(queue)} for {workers(live)}, none of them idle for {self.idle_s:g} s: nothing to change.", "steady", terms)
