"""Between how many workers a pool's size may move now: its base and maximum, as emergency measures and a good forecast have moved them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from fleet import forecasts
from fleet.models import EmergencyAction, Pool


@dataclass(frozen=True, slots=True)
class Bounds:
    """The floor and the maximum in force, and who moved them."""

    base: int
    maximum: int
    why: str = ""
    """One sentence; empty when they are the pool's own."""


def of(pool: Pool, *, now: datetime) -> Bounds:
    """The bounds in force at `now`."""
    raised = EmergencyAction.objects.filter(
        pool=pool, kind=EmergencyAction.Kind.RAISE, starts_at__lte=now, expires_at__gt=now, ended_at__isnull=True
    ).aggregate(base=Max("base"), max=Max("max"), until=Max("expires_at"))
    maximum = max(pool.max, raised["max"] or 0, raised["base"] or 0)
    found = forecasts.floor(pool, now=now)
    base, why = found.workers, found.why if found.workers != pool.base else ""
    if raised["until"]:
        base = max(base, pool.base, raised["base"] or 0)
        why = f"Capacity is raised until {raised['until']:%H:%M} UTC."
    return Bounds(min(base, maximum), maximum, why)
