"""Reads of a pool's kinds of machine for pages: each with the workers of it, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count

from fleet.models import Pool, PoolOffer, Worker


@dataclass(frozen=True, slots=True)
class Kind:
    """An offer in its place, from 1. `workers` are the live ones of it, by state."""

    offer: PoolOffer
    place: int
    last: bool
    refused: bool
    """It could not be had, and is not asked for again before `offer.unavailable_until`."""
    workers: dict[str, int] = field(default_factory=dict)

    @property
    def live(self) -> int:
        return sum(self.workers.values())

    @property
    def ready(self) -> int:
        return sum(self.workers.get(state, 0) for state in Worker.READY)

    @property
    def coming(self) -> int:
        return sum(self.workers.get(state, 0) for state in Worker.COMING)

    @property
    def full(self) -> bool:
        return self.offer.most is not None and self.live >= self.offer.most

    @property
    def off(self) -> bool:
        return self.offer.most == 0


@dataclass(frozen=True, slots=True)
class Kinds:
    """A pool's kinds in the order they are tried, and its live workers that are of none of them."""

    rows: list[Kind]
    others: int

    @property
    def nothing(self) -> bool:
        """Whether no further worker can be had of any kind now."""
        return bool(self.rows) and all(k.refused or k.full for k in self.rows)


def of_pool(pool: Pool, *, now: datetime) -> Kinds:
    """Two queries."""
    counted: dict[int | None, dict[str, int]] = {}
    live = Worker.objects.filter(pool=pool, state__in=Worker.LIVE).order_by()
    for offer_id, state, n in live.values_list("offer_id", "state").annotate(n=Count("id")):
        counted.setdefault(offer_id, {})[state] = n
    offers = list(pool.offers.order_by("rank"))
    rows = [
        Kind(
            offer,
            place,
            last=place == len(offers),
            refused=offer.unavailable_until is not None and offer.unavailable_until > now,
            workers=counted.get(offer.id, {}),
        )
        for place, offer in enumerate(offers, 1)
    ]
    return Kinds(rows, others=sum(counted.get(None, {}).values()))
