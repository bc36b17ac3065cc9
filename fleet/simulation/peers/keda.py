"""KEDA through the HPA it makes, on the length of a queue that counts jobs in progress, as RabbitMQ over HTTP does.

Source: kedacore/keda and its documentation. An external metric of type AverageValue: desired = ceil(value / target), with the HPA's
tolerance, rates and window; the metric is read every 30 s; 0 to 1 as soon as there is anything, back to 0 after 300 s of nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.simulation.peers.hpa import TOLERANCE, rise, stabilised
from fleet.sizing.seen import Memory, Proposal, Seen

POLL_S = 30.0
COOLDOWN_S = 300.0


@dataclass(frozen=True, slots=True)
class Keda:
    """Jobs in the queue, those in progress included, per worker, against `target`."""

    name: ClassVar[str] = "keda"
    tick_s: ClassVar[float] = 15.0
    stops_busy: ClassVar[bool] = True
    target: float = 1.0
    down_window_s: float = 300.0
    waiting_only: float = 0.0
    """1: a list that a job leaves when it starts, as with Redis."""

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        now = seen.now_s
        if "at" not in memory or now - memory["at"] >= POLL_S - 1e-6 or now < memory["at"]:
            memory["at"] = now
            memory["value"] = (seen.queue or 0) + (0 if self.waiting_only else seen.busy)
        value = memory["value"]
        if value > 0:
            memory["active"] = now
        live, least = seen.live, max(1, seen.base)
        if live == 0:
            return Proposal(1 if value > 0 else 0, f"{value} in the queue.", "activation")
        ratio = value / (self.target * live)
        wanted = live if abs(1 - ratio) <= TOLERANCE else math.ceil(value / self.target)
        wanted = min(seen.maximum, stabilised(seen, memory, max(least, wanted), self.down_window_s))
        if seen.base == 0 and value == 0 and wanted <= 1 and now - memory.get("active", now) >= COOLDOWN_S:
            return Proposal(0, "Nothing in the queue for 300 s.", "cooldown")
        return Proposal(rise(live, wanted), f"{value} in the queue for {live}.", "keda")
