"""Which of the first jobs in line a worker should take. Pure: candidates in order in, chosen ids out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

LOOK_AHEAD = 16
"""How far down the line a warm job may be taken from."""

MAX_BYPASS = timedelta(seconds=20)
"""A job older than this is never passed over."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued job as the claim sees it."""

    id: UUID
    priority: int
    warm_key: str
    queued_at: datetime


def choose(candidates: Sequence[Candidate], *, warm: Collection[str], limit: int, now: datetime) -> list[UUID]:
    """Up to `limit` ids: jobs whose models are already loaded first, within one priority class, and never past a job that has waited too long."""
    reachable: list[Candidate] = []
    for candidate in candidates[:LOOK_AHEAD]:
        if reachable and candidate.priority != reachable[0].priority:
            break
        reachable.append(candidate)
    overdue = [c for c in reachable if now - c.queued_at >= MAX_BYPASS]
    rest = [c for c in reachable if c not in overdue]
    ordered = overdue + [c for c in rest if c.warm_key in warm] + [c for c in rest if c.warm_key not in warm] + list(candidates[len(reachable) :])
    return [c.id for c in ordered[:limit]]
