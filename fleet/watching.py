"""Whether the clock, or this process, stood still: what nobody watched is held against nobody.

A clock set forward, a machine that slept, or a loop that hung for a minute makes every worker look silent and every start look slow at
once. From such a moment on, durations are counted anew. Kept by process: who has just taken over judges by what is written down.
"""

from __future__ import annotations

from datetime import datetime, timedelta

GAP = timedelta(seconds=20)
"""Rounds further apart than this were not a watch."""
AHEAD = timedelta(seconds=5)
"""How far a time written by another process may lie ahead of ours."""
_rounds: dict[str, tuple[datetime, datetime | None]] = {}


def since(name: str, *, now: datetime) -> datetime | None:
    """Since when `name` has been watched without a break, when there was one; None while there was none. Called once a round."""
    last, broken = _rounds.get(name, (now, None))
    if not timedelta(0) <= now - last <= GAP:
        broken = now
    _rounds[name] = (now, broken)
    return broken


def passed(at: datetime, *, watched: datetime | None, now: datetime) -> timedelta:
    """How long ago `at` was, as far as it was watched. A moment that lies ahead, as the clock went back, counts from the break on."""
    if at > now + AHEAD:
        at = watched or now
    return now - max(at, watched) if watched is not None else now - at


def forget() -> None:
    """Drop what is kept (tests)."""
    _rounds.clear()
