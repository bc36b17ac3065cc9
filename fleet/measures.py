"""Emergency measures in force, as admission and claims obey them: read once a second a process, whatever the load.

So a measure that begins or is ended by another process is obeyed a second later at most. In this process it is obeyed at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.kernel import sql
from fleet.models import EmergencyAction

TTL_S = 1.0

_OPEN = """
SELECT id, kind, pool_id, workflow_id, version_id, overrides, terms, overflow_s, priority, starts_at, expires_at
FROM fleet_emergencyaction WHERE ended_at IS NULL AND expires_at > %s AND kind IN ('fast', 'pause_class', 'shed')
ORDER BY starts_at DESC, id DESC
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of EmergencyAction that admission or claims look at."""

    id: UUID
    kind: str
    pool_id: int
    workflow_id: UUID | None
    version_id: UUID | None
    overrides: Mapping[str, Any]
    forced: frozenset[str]
    """Overrides that stand even where the customer gave a value."""
    overflow_s: float
    priority: int
    starts_at: datetime
    expires_at: datetime


_kept: tuple[float, datetime, dict[int, tuple[Measure, ...]]] | None = None
_NONE: tuple[Measure, ...] = ()


def in_force(pool_id: int, *, now: datetime) -> tuple[Measure, ...]:
    """The pool's measures at `now`, the newest first."""
    global _kept
    kept = _kept
    if kept is None or time.monotonic() - kept[0] > TTL_S or abs((now - kept[1]).total_seconds()) > TTL_S:
        kept = _kept = (time.monotonic(), now, _read(now))
    found = kept[2].get(pool_id)
    if not found:
        return _NONE
    return tuple(m for m in found if m.starts_at <= now < m.expires_at)


def pause(pool_id: int, *, now: datetime) -> Measure | None:
    """The pause that reaches furthest to the front: its class and those behind it are not claimed."""
    pauses = [m for m in in_force(pool_id, now=now) if m.kind == "pause_class"]
    return min(pauses, key=lambda m: (m.priority, -m.expires_at.timestamp())) if pauses else None


def paused_from(pool_id: int, *, now: datetime) -> int | None:
    """The first class that is paused; None when none is."""
    found = pause(pool_id, now=now)
    return None if found is None else found.priority


def shed_of(pool_id: int, *, priority: int, now: datetime) -> Measure | None:
    """The measure that turns new jobs of this class away soonest."""
    sheds = [m for m in in_force(pool_id, now=now) if m.kind == "shed" and m.priority <= priority]
    return min(sheds, key=lambda m: m.overflow_s) if sheds else None


def fast_of(pool_id: int, *, workflow_id: UUID, now: datetime) -> Measure | None:
    """The newest fast mode of this workflow."""
    return next((m for m in in_force(pool_id, now=now) if m.kind == "fast" and m.workflow_id == workflow_id), None)


def of_row(action: EmergencyAction) -> Measure:
    """A row as a measure."""
    return Measure(
        id=action.id,
        kind=action.kind,
        pool_id=action.pool_id,
        workflow_id=action.workflow_id,
        version_id=action.version_id,
        overrides=action.overrides,
        forced=frozenset(action.terms.get("force") or ()),
        overflow_s=action.overflow_s or 0.0,
        priority=action.priority or 0,
        starts_at=action.starts_at,
        expires_at=action.expires_at,
    )


def forget() -> None:
    """Read afresh at the next look: after a change in this process."""
    global _kept
    _kept = None


def _read(now: datetime) -> dict[int, tuple[Measure, ...]]:
    found: dict[int, tuple[Measure, ...]] = {}
    # A little back, so that callers whose clock was read just before are served by the same rows.
    for row in sql.rows(_OPEN, [now - timedelta(seconds=TTL_S)]):
        id_, kind, pool_id, workflow, version, overrides, terms, overflow_s, priority, starts, expires = row
        begins, ends = sql.to_datetime(starts), sql.to_datetime(expires)
        assert begins is not None and ends is not None
        made = Measure(
            id=sql.to_uuid(id_),
            kind=kind,
            pool_id=pool_id,
            workflow_id=None if workflow is None else sql.to_uuid(workflow),
            version_id=None if version is None else sql.to_uuid(version),
            overrides=sql.to_json(overrides) or {},
            forced=frozenset((sql.to_json(terms) or {}).get("force") or ()),
            overflow_s=overflow_s or 0.0,
            priority=0 if priority is None else priority,
            starts_at=begins,
            expires_at=ends,
        )
        found[pool_id] = (*found.get(pool_id, ()), made)
    return found
