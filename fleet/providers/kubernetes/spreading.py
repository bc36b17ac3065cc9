"""How a pool's count is spread over its Deployments, one for each kind of machine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fleet.models import PoolOffer
from fleet.sizing import offers


@dataclass(frozen=True, slots=True)
class Held:
    """A Deployment as it is."""

    name: str
    replicas: int
    victims: int = 0
    """Of its pods, those that are to go."""
    loose: int = 0
    """Replicas that are no pods yet, or pods whose worker has never been ready: nobody misses them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind of machine that may be had more of."""

    name: str
    offer: offers.Offer


@dataclass(frozen=True, slots=True)
class Plan:
    """By how much each Deployment changes."""

    more: dict[str, int] = field(default_factory=dict)
    fewer: dict[str, int] = field(default_factory=dict)
    missing: int = 0
    """Workers that no kind can be had for."""


def choice(name: str, row: PoolOffer | None, *, now: datetime) -> Choice:
    if row is None:
        return Choice(name, offers.Offer(id=0, rank=0, market="on_demand", price_per_hour_microusd=0))
    available = row.unavailable_until is None or row.unavailable_until <= now
    return Choice(
        name,
        offers.Offer(
            row.id,
            row.rank,
            row.market,
            row.price_per_hour_microusd,
            most=row.most,
            available=available,
            interruptions=row.interruptions,
            worker_hours=row.worker_hours,
        ),
    )


def plan(held: Sequence[Held], choices: Sequence[Choice], *, wanted: int, base: int, on_demand_share: float) -> Plan:
    """Take the victims out, then add what is missing by the offers' order, or take more of what nobody misses, last kinds first.

    Fewer than asked for may go: a pod that serves and was not named stays.
    """
    place = {c.name: index for index, c in enumerate(choices)}
    fewer = {h.name: min(h.victims, h.replicas) for h in held if h.victims}
    left = {h.name: h.replicas - fewer.get(h.name, 0) for h in held}
    excess = sum(left.values()) - wanted
    for one in sorted(held, key=lambda h: place.get(h.name, len(place)), reverse=True):
        if excess <= 0:
            break
        going = min(excess, one.loose, left[one.name])
        if going:
            fewer[one.name] = fewer.get(one.name, 0) + going
            left[one.name] -= going
            excess -= going
    if excess >= 0:
        return Plan(fewer=fewer)
    ids = {c.name: c.offer.id for c in choices}
    live = {ids.get(name, -1 - index): count for index, (name, count) in enumerate(left.items())}
    chosen = offers.choose([c.offer for c in choices], -excess, live=live, base=base, on_demand_share=on_demand_share)
    more: dict[str, int] = {}
    for one_id in chosen:
        name = next(c.name for c in choices if c.offer.id == one_id)
        more[name] = more.get(name, 0) + 1
    return Plan(more=more, fewer=fewer, missing=-excess - len(chosen))
