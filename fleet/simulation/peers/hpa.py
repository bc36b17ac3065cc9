"""Kubernetes' Horizontal Pod Autoscaler, version 2. Source: kubernetes/kubernetes pkg/controller/podautoscaler and its documentation.

desired = ceil(current x value / target), no change within a tolerance of 10 %; pods that are not ready count as using nothing when the
answer is up, and if that turns it round nothing is done; up at most by the larger of 100 % and 4 pods per 15 s; down to the highest
recommendation of the last 300 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen

TOLERANCE = 0.1


def rise(current: int, wanted: int) -> int:
    """At most double, or four more, in one period of 15 s."""
    return min(wanted, max(2 * current, current + 4))


def stabilised(seen: Seen, memory: Memory, wanted: int, window_s: float) -> int:
    """The highest recommendation of the window, when it is lower than now; `memory["recommended"]` holds them."""
    kept = [[at, size] for at, size in memory.get("recommended", []) if seen.now_s - window_s < at <= seen.now_s]
    while kept and kept[-1][1] <= wanted:  # never the highest again
        kept.pop()
    kept.append([seen.now_s, wanted])
    memory["recommended"] = kept
    return max(wanted, min(seen.live, kept[0][1])) if wanted < seen.live else wanted


def per_pod(seen: Seen, total: float, target: float) -> int:
    """Replicas wanted for a metric that is averaged over the pods (plainMetricReplicaCount of the controller)."""
    ready, current = seen.ready or 0, seen.live
    if ready == 0:
        return current
    ratio = total / ready / target
    if not seen.coming or ratio <= 1:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * ready)
    again = total / current / target  # those not ready count as nothing
    if abs(1 - again) <= TOLERANCE or again < 1:
        return current
    return max(current, math.ceil(again * current))


@dataclass(frozen=True, slots=True)
class HpaUtilisation:
    """Share of the workers that are busy, against `target`."""

    name: ClassVar[str] = "hpa-utilisation"
    tick_s: ClassVar[float] = 15.0
    stops_busy: ClassVar[bool] = True
    target: float = 0.7
    down_window_s: float = 300.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        wanted = max(1, seen.base, per_pod(seen, seen.busy, self.target))
        wanted = min(seen.maximum, stabilised(seen, memory, wanted, self.down_window_s))
        return Proposal(rise(seen.live, wanted), f"{seen.busy} busy of {seen.ready}.", "hpa")


@dataclass(frozen=True, slots=True)
class HpaWaiting:
    """Jobs waiting per worker, against `target`: a per-pod metric."""

    name: ClassVar[str] = "hpa-waiting"
    tick_s: ClassVar[float] = 15.0
    stops_busy: ClassVar[bool] = True
    target: float = 1.0
    down_window_s: float = 300.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        wanted = max(1, seen.base, per_pod(seen, seen.queue or 0, self.target))
        wanted = min(seen.maximum, stabilised(seen, memory, wanted, self.down_window_s))
        return Proposal(rise(seen.live, wanted), f"{seen.queue} waiting for {seen.ready}.", "hpa")
