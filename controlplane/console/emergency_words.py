"""Emergencies as the console says them: what needs a person, and the banner shown while a measure is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.console import numbers
from controlplane.console.attention import Need
from fleet import consequences, emergencies, emergency_calls
from fleet.consequences import Backlog
from fleet.models import EmergencyAction, Pool

LONG_S = 1800.0
"""A queue that takes longer than this to begin, and ten times the target, is told before its jobs have waited so long."""
SOON_S = 900.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One measure in force, for the banner and the list."""

    action: EmergencyAction
    said: str
    word: str
    left_s: float
    may_end: bool = False
    progress: str = ""
    """How far it has come with the jobs that waited, where it means them."""

    @property
    def soon(self) -> bool:
        return self.left_s <= SOON_S


def banner(pool: Pool | None = None, *, roles: Sequence[str] | frozenset[str] = (), now: datetime) -> list[Shown]:
    """The measures in force, of a pool or of all: for `console/_emergencies.html` as `emergencies`."""
    return [_shown(action, roles, now) for action in emergencies.active(pool, now=now)]


def of_backlogs(rows: Sequence[tuple[Pool, Backlog]], *, href: str) -> list[Need]:
    """Pools whose queue takes long to begin, told by what it will take, not by what it took."""
    found = []
    for pool, here in rows:
        if here.drain_s <= max(LONG_S, 10 * pool.target_s):
            continue
        delay = consequences.duration(here.drain_s)
        workers = f"{numbers.count(here.live)} {'worker' if here.live == 1 else 'workers'}"
        text = f"{numbers.count(here.jobs)} jobs wait for {workers}; the last of them begins in about {delay}. Target {numbers.dur(pool.target_s)}."
        short = f"the {pool.slug} queue takes {delay}"
        found.append(Need(1, "bad", "Queue backup", "clock", f"{pool.slug}: {delay} delay", text, href.replace("POOL", pool.slug), delay, short))
    return found


def backlogs(pools: Sequence[Any], *, now: datetime) -> list[tuple[Pool, Backlog]]:
    """The backlog of each pool that has a queue. `pools` are PoolNow."""
    return [(p.pool, consequences.backlog(p.pool, now=now)) for p in pools if p.queue]


def _shown(action: EmergencyAction, roles: Sequence[str] | frozenset[str], now: datetime) -> Shown:
    kind = kind_of(action)
    left = (action.expires_at - now).total_seconds()
    may_end = emergency_calls.NEEDS[kind] in roles
    return Shown(action, emergency_calls.said(action), emergency_calls.WORDS[kind], left, may_end, emergency_calls.progress(action))


def kind_of(action: EmergencyAction) -> str:
    """The measure's name in calls and addresses."""
    return {"pause_class": "pause"}.get(action.kind, action.kind)
