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


def choose(candidates: Sequence[Candidate], *, warm: Collection[str], stored: Collection[str] = (), limit: int, now: datetime) -> list[UUID]:
    """Up to `limit` ids in order, save that a job whose models are loaded goes first: within one priority class, and never past a job that has waited too long.

    Where none is loaded, one whose models are on the worker's disk goes first. Having waited gives nobody a place of its own, or a
    long batch would go before every newcomer.
    """
    line: list[Candidate] = []
    for candidate in candidates[:LOOK_AHEAD]:
        if line and candidate.priority != line[0].priority:
            break
        line.append(candidate)
    beyond = candidates[len(line) :]
    chosen: list[UUID] = []
    while line and len(chosen) < limit:
        reach = next((place for place, c in enumerate(line) if now - c.queued_at >= MAX_BYPASS), len(line) - 1)
        near = line[: reach + 1]
        pick = next((place for keys in (warm, stored) for place, c in enumerate(near) if c.warm_key in keys), 0)
        chosen.append(line.pop(pick).id)
    return chosen + [c.id for c in beyond[: limit - len(chosen)]]
