"""Which kind of machine the next workers are: in the pool's order, with its base on demand and spot above it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind of machine as the choice sees it."""

    id: int
    rank: int
    market: str
    price_per_hour_microusd: int
    most: int | None = None
    available: bool = True
    interruptions: int = 0
    worker_hours: float = 0.0


def risk_per_hour(offer: Offer) -> float:
    """Interruptions expected of one worker in an hour: a Gamma(1, 20 h) prior, so that a new kind is no safer than it was seen to be."""
    return (offer.interruptions + 1) / (offer.worker_hours + 20) if offer.market == "spot" else 0.0


def expected_price(offer: Offer, *, job_s: float, rerun_cost_s: float = 0.0) -> float:
    """Micro-dollars an hour of useful work: the price over the share of jobs that are not interrupted, plus what is run again.

    Source: control loops that buy spot capacity price an interruption as the job's lost half and a new start.
    """
    lost_share = min(0.95, risk_per_hour(offer) * (job_s / 2 + rerun_cost_s) / 3600)
    return offer.price_per_hour_microusd / (1 - lost_share)


def choose(
    offers: Sequence[Offer], count: int, *, live: Mapping[int, int], base: int, on_demand_share: float, job_s: float = 0.0, cold_s: float = 0.0
) -> list[int]:
    """The offers of `count` new workers, by id. Fewer than `count` when nothing more can be had.

    `live` is workers by offer. The base is on demand; above it at least `on_demand_share` is. When spot cannot be had, on demand
    takes its place at once, and is given up again by being the dearest when the pool shrinks. Spot that costs more than on demand
    once its interruptions are counted is not taken.
    """
    have = dict(live)
    market = {offer.id: offer.market for offer in offers}
    chosen: list[int] = []
    for _ in range(count):
        free = [o for o in offers if o.available and (o.most is None or have.get(o.id, 0) < o.most)]
        if not free:
            break
        total = sum(have.values())
        steady = sum(n for id_, n in have.items() if market.get(id_) != "spot")
        needed = min(base, total + 1) + on_demand_share * max(0, total + 1 - base)
        firm = sorted((o for o in free if o.market != "spot"), key=lambda o: o.rank)
        spot = sorted((o for o in free if o.market == "spot"), key=lambda o: o.rank)
        least = min((o.price_per_hour_microusd for o in firm), default=None)
        worth = [o for o in spot if least is None or expected_price(o, job_s=job_s, rerun_cost_s=cold_s) <= least]
        take = firm[0] if firm and (steady + 1e-9 < needed or not worth) else worth[0] if worth else (firm or spot)[0]
        have[take.id] = have.get(take.id, 0) + 1
        chosen.append(take.id)
    return chosen
