"""Knative's pod autoscaler. Source: knative/serving pkg/autoscaler/scaling/autoscaler.go.

Every 2 s: mean concurrency (waiting and running) over a stable window of 60 s and a panic window of 6 s, each over the target per pod;
at most 1000 times up and half down; at 200 % of the ready pods it panics, holds the highest wish and stops when the stable window has
passed without it. Concurrency 1 a pod, utilisation 70 %. `delay_s` is its scale-down delay: the highest wish of that stretch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen

STABLE_S = 60.0
PANIC_S = 6.0
PANIC_AT = 2.0
UP = 1000.0
DOWN = 2.0
GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class Knative:
    """Jobs in the system per worker, against `target`."""

    name: ClassVar[str] = "knative"
    tick_s: ClassVar[float] = 2.0
    stops_busy: ClassVar[bool] = True
    target: float = 0.7
    delay_s: float = 0.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        now = seen.now_s
        kept: list[float] = memory.setdefault("concurrency", [])
        kept.append(float((seen.queue or 0) + seen.busy))
        most = round(STABLE_S / self.tick_s)
        del kept[:-most]
        recent = kept[-round(PANIC_S / self.tick_s) :]
        stable, panic = sum(kept) / len(kept), sum(recent) / len(recent)
        ready = max(1, seen.ready or 0)
        highest, lowest = math.ceil(UP * ready), math.floor(ready / DOWN)
        want_stable = min(max(math.ceil(stable / self.target), lowest), highest)
        want_panic = min(max(math.ceil(panic / self.target), lowest), highest)
        over = math.ceil(panic / self.target) / ready >= PANIC_AT
        since = memory.get("panic_at")
        if since is None and over:
            memory["panic_at"], memory["panic_size"] = now, 0
        elif since is not None and over:
            memory["panic_at"] = now
        elif since is not None and now - since > STABLE_S:
            memory["panic_at"] = None
        if memory.get("panic_at") is not None:
            memory["panic_size"] = max(memory["panic_size"], want_panic, seen.live)
            wanted = memory["panic_size"]
        else:
            wanted = want_stable
        if self.delay_s > 0:
            past = [[at, size] for at, size in memory.get("wishes", []) if now - self.delay_s < at <= now]
            while past and past[-1][1] <= wanted:
                past.pop()
            past.append([now, wanted])
            memory["wishes"] = past
            wanted = past[0][1]
        if wanted > 0:
            memory["active"] = now
        elif seen.live and now - memory.get("active", now) < GRACE_S:
            wanted = 1
        return Proposal(max(seen.base, min(wanted, seen.maximum)), f"{stable:.1f} in the system over 60 s.", "knative")
