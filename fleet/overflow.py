"""What a new job meets while a measure is in force: refused politely, or run the cheaper way, or nothing, by the wait it would have.

A job that the result cache answers waits for nobody and is never touched; nor is a smoke job, which must run what it tests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from builds import inputs as input_rules
from builds.dependencies.fitting import refuse_unfit
from builds.models import Version
from controlplane.kernel import sql
from controlplane.kernel.errors import Unavailable, WorkflowError
from fleet import fairness, job_times, measures
from fleet.measures import Measure
from fleet.models import Pool

COUNTED = 20_000
"""How many jobs ahead are counted; more of them read as this many, which is a wait beyond any threshold."""
LONGEST_RETRY_S = 3600
_TTL_S = 1.0
_MOST_KEPT = 2000

_AHEAD = """
WITH tag AS (
  SELECT {greatest}(p.virtual_time, %s, coalesce((
      SELECT h.fair_tag FROM fleet_job h WHERE h.pool_id = p.id AND h.status = 'queued' AND h.priority = %s AND h.fair_tag > %s ORDER BY h.fair_tag LIMIT 1
    ), 0), coalesce((SELECT s.finish_tag FROM fleet_fairshare s WHERE s.pool_id = p.id AND s.customer_id = %s), 0)) AS at
  FROM fleet_pool p WHERE p.id = %s
), ahead AS (
  SELECT j.version_id FROM fleet_job j, tag
  WHERE j.pool_id = %s AND j.status = 'queued' AND j.source <> 'smoke' AND (j.priority < %s OR (j.priority = %s AND j.fair_tag < tag.at)) LIMIT %s
)
SELECT version_id, count(*) FROM ahead GROUP BY version_id
"""

_WORKERS = """
SELECT count(CASE WHEN state IN ('idle', 'busy') THEN 1 END), count(CASE WHEN state = 'busy' THEN 1 END), count(*)
FROM fleet_worker WHERE pool_id = %s AND state IN ('ordered', 'starting', 'loading', 'idle', 'busy') AND cordoned_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What stands before a job that came now."""

    jobs: int
    work_s: float
    workers: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as its customer asks for it."""

    pool_id: int
    customer_id: UUID
    priority: int
    version: Version
    pinned: bool
    """Whether the customer named the version."""
    values: dict[str, Any]
    """Validated, with defaults."""
    explicit: set[str]
    """The inputs that the customer wrote."""


@dataclass(frozen=True, slots=True)
class Fast:
    """How a job runs in fast mode, and what it had asked for."""

    version: Version
    values: dict[str, Any]
    record: dict[str, Any]
    """For Job.fast."""


_waits: dict[tuple[int, UUID, int], tuple[float, datetime, Ahead]] = {}


def ahead(pool_id: int, *, customer_id: UUID, priority: int, now: datetime) -> Ahead:
    """What a new job of this customer and class would wait for, by its place in the fair order. Kept for a second a process."""
    key = (pool_id, customer_id, priority)
    held = _waits.get(key)
    if held is not None and time.monotonic() - held[0] <= _TTL_S and abs((now - held[1]).total_seconds()) <= _TTL_S:
        return held[2]
    made = _ahead(pool_id, customer_id=customer_id, priority=priority, now=now)
    if len(_waits) >= _MOST_KEPT:
        _waits.clear()
    _waits[key] = (time.monotonic(), now, made)
    return made


def forget() -> None:
    """Drop what is kept (tests, and after the queue was changed by hand)."""
    _waits.clear()


def refuse_shed(asked: Asked, *, now: datetime) -> None:
    """Raise Unavailable, with the time until it is worth another try, when this class is shed and the wait is longer than agreed."""
    measure = measures.shed_of(asked.pool_id, priority=asked.priority, now=now)
    if measure is None:
        return
    found = ahead(asked.pool_id, customer_id=asked.customer_id, priority=asked.priority, now=now)
    if found.wait_s <= measure.overflow_s:
        return
    over = (measure.expires_at - now).total_seconds()
    drained = max(5.0, found.wait_s - measure.overflow_s) * _spread(asked.customer_id)
    retry_s = max(1, min(LONGEST_RETRY_S, round(min(drained, over))))
    raise Unavailable(
        "temporarily_reduced_capacity",
        f"More is asked for than can be run now: a new job of this priority would wait about {duration(found.wait_s)}. Jobs already accepted are not affected.",
        f"Send it again in {duration(retry_s)}, or with a higher priority if your plan has one.",
        details={"retry_after_s": retry_s, "predicted_wait_s": round(found.wait_s), "until": measure.expires_at.isoformat()},
        headers={"Retry-After": str(retry_s)},
    )


def fast(asked: Asked, *, workflow_id: UUID, now: datetime) -> Fast | None:
    """How fast mode runs this job; None when it does not touch it."""
    measure = measures.fast_of(asked.pool_id, workflow_id=workflow_id, now=now)
    if measure is None:
        return None
    found = ahead(asked.pool_id, customer_id=asked.customer_id, priority=asked.priority, now=now)
    if found.wait_s <= measure.overflow_s:
        return None
    return changed(measure, version=asked.version, values=asked.values, explicit=asked.explicit, pinned=asked.pinned, wait_s=found.wait_s)


def changed(measure: Measure, *, version: Version, values: Mapping[str, Any], explicit: set[str], pinned: bool, wait_s: float) -> Fast | None:
    """The job as this measure has it run; None where that is no change, or where the cheaper version does not take such inputs."""
    target = version
    if measure.version_id is not None and not pinned and measure.version_id != version.id:
        target = _version(measure.version_id)
    random = {one.name for one in input_rules.exposed_of(version) if one.randomize}
    set_to = {name: value for name, value in measure.overrides.items() if name not in explicit or name in measure.forced}
    # What only a default had put there follows the version that runs.
    kept = {name: value for name, value in values.items() if target is version or name in explicit or name in random}
    try:
        fitted = input_rules.fill_random(target, input_rules.validate(target, {**kept, **set_to}))
        refuse_unfit(target, fitted)
    except WorkflowError:
        return None
    asked = {name: values[name] for name in values if name in explicit and fitted.get(name) != values[name]}
    if target is version and fitted == dict(values):
        return None
    before = {name: values.get(name) for name in set_to if values.get(name) != fitted.get(name)} | asked
    reason = f"Jobs waited about {duration(wait_s)}, so this one runs {_how(target, version, set_to, before)}."
    record = {"action": str(measure.id), "reason": reason, "asked_version": version.number, "asked_version_id": str(version.id), "asked_inputs": dict(before)}
    return Fast(target, fitted, record)


def duration(seconds: float) -> str:
    """About how long, for a sentence."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h".replace(".0 h", " h")


def _how(target: Version, version: Version, set_to: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    said = [] if target is version else [f"as version {target.number}, which is faster"]
    said += [f"with {name} {str(set_to[name])[:40]}" for name in sorted(before) if name in set_to]
    return " and ".join(said[:4]) or "the faster way"


def _ahead(pool_id: int, *, customer_id: UUID, priority: int, now: datetime) -> Ahead:
    statement = _AHEAD.format(greatest="max" if connection.vendor == "sqlite" else "greatest")
    rows = sql.rows(statement, [fairness.FRONT + 1, priority, fairness.FRONT, customer_id, pool_id, pool_id, priority, priority, COUNTED])
    times = job_times.of_pool(Pool(id=pool_id), now=now)
    counts = {sql.to_uuid(version): float(n) for version, n in rows}
    jobs, work_s = int(sum(counts.values())), times.work_s(counts)
    ready, busy, live = workers(pool_id)
    wait_s = wait(work_s, ready=ready, busy=busy, live=live, mean_s=times.all.mean_s, cold_s=times.cold.p50_s)
    pause = measures.pause(pool_id, now=now)
    if pause is not None and pause.priority <= priority:
        wait_s = max(wait_s, (pause.expires_at - now).total_seconds())
    return Ahead(jobs, work_s, live, wait_s)


def workers(pool_id: int) -> tuple[int, int, int]:
    """How many workers are ready, how many of them busy, and how many are ready or coming."""
    ((ready, busy, live),) = sql.rows(_WORKERS, [pool_id])
    return int(ready), int(busy), int(live)


def wait(work_s: float, *, ready: int, busy: int, live: int, mean_s: float, cold_s: float) -> float:
    """Seconds a job waits behind `work_s` seconds of work: the workers there are share it, and one of them must come free first."""
    if ready == 0:
        return cold_s + work_s / max(1, live)
    if work_s <= 0 and busy < ready:
        return 0.0
    return work_s / live + (mean_s / live if busy >= ready else 0.0)


def _spread(customer_id: UUID) -> float:
    """From 0.9 to 1.1 by customer, so that those turned away together do not come back together."""
    return 0.9 + (customer_id.int % 21) / 100


def _version(version_id: UUID) -> Version:
    """Kept by `fleet.releases` for live versions; read here for the cheaper one."""
    found = _versions.get(version_id)
    if found is None:
        if len(_versions) > 64:
            _versions.clear()
        found = _versions[version_id] = Version.objects.defer("ui_graph", "lock", "findings").get(id=version_id)
    return found


_versions: dict[UUID, Version] = {}
