"""How dear each pod of a pool is, as its worker's row says: who works, who is idle, who has never been ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.models import Job, Pool, Worker
from fleet.providers.kubernetes import ranking

SETTLED = timedelta(seconds=60)
"""A worker between two jobs stays dear for so long: its pod need not be written for each job."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The pods of a pool by what they are worth."""

    costs: Mapping[str, int]
    """Deletion cost by pod, of those whose worker is known and lives. One that just became idle keeps what it has."""
    busy: frozenset[str]
    """Pods with a job at this moment."""
    serving: frozenset[str]
    """Pods whose worker has become ready and was not told to go."""


def of(pool: Pool, *, now: datetime) -> Standing:
    """Look at the rows."""
    rows = Worker.objects.filter(pool=pool, state__in=Worker.LIVE).values_list("id", "instance", "state", "idle_since")
    working = set(Job.objects.filter(worker__pool=pool, status="running").values_list("worker_id", flat=True))
    costs: dict[str, int] = {}
    busy, serving = set(), set()
    for id_, name, state, idle_since in rows:
        if id_ in working or state == Worker.State.BUSY:
            costs[name] = ranking.BUSY
            busy.add(name)
        elif state == Worker.State.IDLE and idle_since is not None and now - idle_since >= SETTLED:
            costs[name] = ranking.IDLE
        if state in (Worker.State.IDLE, Worker.State.BUSY, Worker.State.FAULTED):
            serving.add(name)
    return Standing(costs, frozenset(busy), frozenset(serving))
