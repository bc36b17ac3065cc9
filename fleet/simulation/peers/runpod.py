"""RunPod's two ways to scale an endpoint. Source: its documentation; how far one step of queue delay goes is not published.

Queue delay: a worker more when a job waits longer than so many seconds, one per 4 s tick assumed. Request count:
ceil((waiting + in progress) / value). A worker leaves when it has been idle for the idle timeout, 5 s unless said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen


def _idle(seen: Seen, timeout_s: float, least: int) -> int:
    """The size once the workers that idle too long have left, never below `least`."""
    return max(least, seen.base, seen.live - sum(1 for s in seen.idle_s if s >= timeout_s))


@dataclass(frozen=True, slots=True)
class RunpodDelay:
    """One worker more while the oldest job waits longer than `delay_s`."""

    name: ClassVar[str] = "runpod-delay"
    tick_s: ClassVar[float] = 4.0
    delay_s: float = 4.0
    idle_s: float = 5.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        if seen.oldest_wait_s > self.delay_s:
            return Proposal(seen.live + 1, f"A job waits for {seen.oldest_wait_s:.0f} s.", "delay")
        return Proposal(_idle(seen, self.idle_s, 0), "Nothing waits for long.", "idle")


@dataclass(frozen=True, slots=True)
class RunpodRequests:
    """A worker for so many jobs, waiting or in progress."""

    name: ClassVar[str] = "runpod-requests"
    tick_s: ClassVar[float] = 4.0
    per_worker: float = 4.0
    idle_s: float = 5.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        inside = (seen.queue or 0) + seen.busy
        wanted = math.ceil(inside / self.per_worker)
        if wanted >= seen.live:
            return Proposal(wanted, f"{inside} in the system.", "count")
        return Proposal(_idle(seen, self.idle_s, wanted), f"{inside} in the system.", "idle")
