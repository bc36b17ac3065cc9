"""What a sizing policy is shown of a pool, and what it answers. Plain numbers: seconds, jobs, workers.

None stands for a figure that could not be had; a policy is never asked while `queue` or `ready` is missing (`bounding.missing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

Memory = dict[str, Any]
"""What a policy keeps from tick to tick: plain JSON values, so that it survives a restart. Empty at first."""


@dataclass(frozen=True, slots=True)
class JobTime:
    """Seconds a worker is occupied by one job of the present mix, model loading included."""

    mean_s: float = 10.0
    cv2: float = 1.0
    """Squared coefficient of variation: variance over mean squared."""
    samples: int = 0


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds from the order of a worker to its first claim, as measured for this pool."""

    p50_s: float = 60.0
    p90_s: float = 90.0
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """Announced demand: a batch (`jobs`, `work_s`) arriving between two moments, or an event (`factor`, `workers`)."""

    starts_in_s: float
    ends_in_s: float
    jobs: int = 0
    work_s: float = 0.0
    factor: float = 1.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A pool at one moment. Stored with every decision, so that it can be replayed."""

    now_s: float
    """Seconds since any fixed moment; only differences count. May go back when a clock is set: a policy must survive that."""
    queue: int | None
    """Jobs waiting."""
    ready: int | None
    """Workers that can take jobs: idle and busy ones, not cordoned."""
    busy: int = 0
    coming_s: tuple[float, ...] = ()
    """Seconds since each worker that is not ready yet was ordered, oldest first."""
    idle_s: tuple[float, ...] = ()
    """Seconds each idle worker has had nothing to do, longest first."""
    queue_work_s: float | None = None
    """Seconds of one worker that the waiting jobs need; None: queue × job.mean_s."""
    oldest_wait_s: float = 0.0
    rate_1m: float = 0.0
    """Jobs that arrived a second, over the last minute; likewise over 5, 10 and 60 minutes."""
    rate_5m: float = 0.0
    rate_10m: float = 0.0
    rate_1h: float = 0.0
    job: JobTime = field(default_factory=JobTime)
    cold: ColdStart = field(default_factory=ColdStart)
    planned: tuple[Planned, ...] = ()
    base: int = 0
    """Fewest workers: the pool's base, as forecast and emergency measures have moved it."""
    maximum: int = 1
    target_s: float = 60.0
    target_share: float = 0.99
    """Wait target: this share of the jobs starts within target_s."""
    price_per_hour_microusd: int = 0

    @property
    def coming(self) -> int:
        return len(self.coming_s)

    @property
    def live(self) -> int:
        """Workers that are ready or coming: what a proposal is compared with."""
        return (self.ready or 0) + len(self.coming_s)

    @property
    def waiting_work_s(self) -> float:
        """Seconds of one worker that wait."""
        return self.queue_work_s if self.queue_work_s is not None else (self.queue or 0) * self.job.mean_s


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a policy asks for, before any bound."""

    wanted: int
    """Workers ready or coming."""
    reason: str
    """One sentence a tired person understands."""
    rule: str = ""
    """The part of the policy that won, e.g. backlog, steady, idle."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The figures behind it, by name, for the decision's page."""
    predicted_wait_s: float | None = None
    """Wait that `target_share` of the jobs are expected to stay under with `wanted` workers."""


class Policy(Protocol):
    """A way to size a pool. Its knobs are the fields of its dataclass."""

    name: ClassVar[str]

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        """The size wanted now. `memory` may be changed; it is the one this policy left at its last tick, or empty."""
