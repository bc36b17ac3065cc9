"""Who leaves when a pool shrinks: the idle worker whose warm state is worth least. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle worker and what it holds."""

    id: str
    idle_s: float
    warm: tuple[str, ...] = ()
    """Keys of the models it has loaded."""
    spot: bool = False
    price_per_hour_microusd: int = 0
    cordoned: bool = False
    old_image: bool = False


def value(worker: Idle, *, demand: Mapping[str, float], holders: Mapping[str, int]) -> float:
    """What its warm state saves: expected jobs of each model it holds, shared with the other workers that hold it too."""
    return sum(demand.get(key, 0.0) / max(1, holders.get(key, 1)) for key in set(worker.warm))


def choose(idle: Sequence[Idle], count: int, *, demand: Mapping[str, float]) -> list[str]:
    """Up to `count` ids. Cordoned and outdated ones go first, then least warm value, then the dearest, then spot, then the longest idle.

    `demand` is the jobs expected by warm key, in any unit. Holders are counted again after each choice: the last holder of a wanted model stays.
    """
    left = list(idle)
    holders: dict[str, int] = {}
    for worker in left:
        for key in set(worker.warm):
            holders[key] = holders.get(key, 0) + 1
    chosen: list[str] = []
    while left and len(chosen) < count:
        least = min(
            left,
            key=lambda w: (
                not w.cordoned,
                not w.old_image,
                round(value(w, demand=demand, holders=holders), 9),
                -w.price_per_hour_microusd,
                not w.spot,
                -w.idle_s,
                w.id,
            ),
        )
        left.remove(least)
        chosen.append(least.id)
        for key in set(least.warm):
            holders[key] -= 1
    return chosen
