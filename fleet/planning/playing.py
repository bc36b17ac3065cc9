"""A pool's terms and a stretch of its arrivals as the simulator takes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleet.sizing import policies
from fleet.sizing.bounding import Limits
from fleet.sizing.seen import Planned, Policy

if TYPE_CHECKING:
    from fleet.simulation import Outcome
    from fleet.simulation.outcome import Floats

TICK_S = 15.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How a pool is sized. Raises Invalid when its policy or a knob is not known, on `play`."""

    policy: str
    base: int
    maximum: int
    knobs: Mapping[str, Any] = field(default_factory=dict)
    target_s: float = 60.0
    target_share: float = 0.99
    price_per_hour_microusd: int = 0
    budget_workers: int | None = None

    def made(self) -> Policy:
        return policies.make(self.policy, self.knobs)


@dataclass(frozen=True, slots=True)
class History:
    """What arrived in a stretch: seconds from its start, and seconds of one worker each."""

    seconds: float
    arrivals: Floats
    service: Floats
    kinds: Sequence[int] | None = None
    jobs: int = 0
    """How many jobs really came."""
    merged: int = 1
    """Each simulated job stands for so many: more than one where there were too many to simulate in time."""
    workers: int | None = None
    """Ready at its start; None: not known."""
    cold_s: Sequence[float] = (60.0,)
    planned: Sequence[Planned] = ()
    notes: tuple[str, ...] = ()
    """What limits it, in sentences."""

    @property
    def work_s(self) -> float:
        return float(self.service.sum())


def play(terms: Terms, history: History, *, seed: int = 0) -> Outcome:
    """What the pool would have done with these arrivals under `terms`. It starts with the workers it had, within the bounds."""
    from fleet.simulation import simulate

    first = terms.base if history.workers is None else max(terms.base, min(terms.maximum, history.workers))
    return simulate(
        history.arrivals,
        history.service,
        policy=terms.made(),
        base=terms.base,
        maximum=terms.maximum,
        cold_start_s=list(history.cold_s),
        target_s=terms.target_s,
        target_share=terms.target_share,
        tick_s=TICK_S,
        price_per_hour_microusd=terms.price_per_hour_microusd,
        floor=lambda t: first if t <= 0 else terms.base,
        limits=Limits(budget_workers=terms.budget_workers),
        planned=history.planned,
        kinds=history.kinds,
        seed=seed,
        until_s=history.seconds,
    )
