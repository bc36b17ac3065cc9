"""Fast mode for jobs that wait already: changed in their places, for no more than they were quoted; and put back when it is ended.

The line is walked once from its front, a batch a transaction. How far the walk has come stands in the measure's row (`terms.walk`),
so whoever dies in between leaves the rest to the control loop, and ending the measure turns the walk round from where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from builds import inputs as input_rules
from builds.models import Channel, Version
from controlplane.kernel import sql
from fleet import job_times, measures, overflow, result_cache
from fleet.models import EmergencyAction, Job

BATCH = 200
"""Jobs of the line a transaction looks at: about a tenth of a second of SQLite's one writer."""
BUDGET_S = 3.0
MOST_PAUSE_S = 0.05
CHANGE, RESTORE = "change", "restore"

_LINE = """
SELECT id, priority, fair_tag, workflow_id, version_id, source FROM fleet_job
WHERE pool_id = %s AND status = 'queued' AND (priority, fair_tag, id) > (%s, %s, %s)
ORDER BY priority, fair_tag, id LIMIT %s
"""

_CHANGE = """
UPDATE fleet_job SET version_id = %s, warm_key = %s, inputs = %s, result_key = %s, fast = %s, revision = revision + 1
WHERE id = %s AND status = 'queued'
"""


def begin(action: EmergencyAction, *, doing: str, now: datetime) -> None:
    """Note in the row's terms that its walk begins at the front of the line. Saving is the caller's."""
    line = Job.objects.filter(pool_id=action.pool_id, status="queued").count()
    walk: dict[str, Any] = {"doing": doing, "after": [-1, -1.0, UUID(int=0).hex], "seen": 0, "of": line}
    if doing == CHANGE:
        # The line is judged as it stood when the measure was taken, whenever a batch comes to it.
        times = job_times.of_pool(action.pool, now=now)
        ready, busy, live = overflow.workers(action.pool_id)
        walk |= {"work_s": 0.0, "ready": ready, "busy": busy, "live": live, "mean_s": times.all.mean_s, "cold_s": times.cold.p50_s}
    action.terms = {**action.terms, {CHANGE: "changed", RESTORE: "restored"}[doing]: 0, "walk": walk}


def go_on(action: EmergencyAction, *, fence: Callable[[], None], now: datetime, budget_s: float = BUDGET_S) -> int:
    """Change, or put back, until the line is walked or the time is up; returns how many jobs. `action` is read afresh."""
    began, done = time.monotonic(), 0
    while (spent := time.monotonic() - began) < budget_s:
        n = _batch(action, fence=fence, now=now + timedelta(seconds=spent))
        if n is None:
            break
        done += n
        time.sleep(min(MOST_PAUSE_S, (time.monotonic() - began - spent) / 2))  # SQLite has one writer: others come between
    action.refresh_from_db()
    return done


def go_on_all(*, fence: Callable[[], None], now: datetime) -> str:
    """Walks that were begun and not finished go on; says how many jobs."""
    said = []
    for action in EmergencyAction.objects.filter(kind=EmergencyAction.Kind.FAST, terms__has_key="walk").order_by("starts_at")[:5]:
        verb = "put back" if action.terms["walk"]["doing"] == RESTORE else "changed while they waited"
        said.append(f"{go_on(action, fence=fence, now=now)} {verb}")
    return ", ".join(said)


def progress(action: EmergencyAction) -> dict[str, Any] | None:
    """How far the walk is: {doing, seen, of, changed, restored}, counts of jobs; None for a measure that means no waiting jobs."""
    terms = action.terms
    if "changed" not in terms:
        return None
    walk = terms.get("walk")
    counts = {"changed": terms["changed"], "restored": terms.get("restored", 0)}
    if walk is None:
        return {"doing": None, "seen": None, "of": None, **counts}
    return {"doing": walk["doing"], "seen": walk["seen"], "of": max(walk["of"], walk["seen"]), **counts}


@transaction.atomic
def _batch(action: EmergencyAction, *, fence: Callable[[], None], now: datetime) -> int | None:
    """One batch of the line, from where the row says; None when there is nothing left to do."""
    fence()
    held = EmergencyAction.objects.select_for_update(of=("self",)).select_related("pool", "workflow").get(id=action.id)
    walk = held.terms.get("walk")
    if walk is None:
        return None
    if walk["doing"] == CHANGE and _put_back_first(held):
        return None
    line = sql.rows(_LINE, [held.pool_id, *walk["after"][:2], UUID(walk["after"][2]), BATCH])
    over = walk["doing"] == CHANGE and (held.ended_at is not None or held.expires_at <= now)
    if not line and walk["doing"] == RESTORE:
        return _last(held)
    if not line or over:
        held.terms = {name: value for name, value in held.terms.items() if name != "walk"}
        held.save(update_fields=["terms"])
        return None
    walk = dict(walk)
    ids = [sql.to_uuid(row[0]) for row in line]
    n = _restore(held, ids) if walk["doing"] == RESTORE else _change(held, _late(held, line, walk, now=now))
    last_id, priority, tag = line[-1][:3]
    walk |= {"after": [priority, tag, sql.to_uuid(last_id).hex], "seen": walk["seen"] + len(line)}
    counted = "restored" if walk["doing"] == RESTORE else "changed"
    held.terms = {**held.terms, counted: held.terms[counted] + n, "walk": walk}
    held.save(update_fields=["terms"])
    return n


def _put_back_first(action: EmergencyAction) -> bool:
    """Whether an earlier measure's jobs are still being put back: this one would pass them by, and they would then run the dear way."""
    others = EmergencyAction.objects.filter(kind=EmergencyAction.Kind.FAST, pool_id=action.pool_id, workflow=action.workflow)
    return others.exclude(id=action.id).filter(terms__walk__doing=RESTORE).exclude(terms__walk__has_key="last").exists()


def _last(action: EmergencyAction) -> int | None:
    """After the line: jobs that ran meanwhile may come back to it, in front of where the walk was. Done when none of them runs or waits."""
    mine = Job.objects.filter(pool_id=action.pool_id, workflow=action.workflow, fast__action=str(action.id), fast__waiting=True)
    runs = mine.filter(status="running").exists()
    back = [] if runs else list(mine.filter(status="queued").values_list("id", flat=True)[:BATCH])
    n = _restore(action, back)
    terms = {name: value for name, value in action.terms.items() if name != "walk"}
    if runs or back:
        terms["walk"] = {**action.terms["walk"], "last": True}
    action.terms = {**terms, "restored": terms["restored"] + n}
    action.save(update_fields=["terms"])
    return n or None


def _late(action: EmergencyAction, line: list[tuple[Any, ...]], walk: dict[str, Any], *, now: datetime) -> dict[UUID, float]:
    """Those of these jobs that are the workflow's and too far back, each with its wait. Counts the line's work on in `walk`."""
    times = job_times.of_pool(action.pool, now=now)
    found: dict[UUID, float] = {}
    for id_, _, _, workflow_id, version_id, source in line:
        if source == Job.SMOKE:
            continue
        if sql.to_uuid(workflow_id) == action.workflow_id:
            wait_s = overflow.wait(walk["work_s"], **{name: walk[name] for name in ("ready", "busy", "live", "mean_s", "cold_s")})
            if wait_s > (action.overflow_s or 0.0):
                found[sql.to_uuid(id_)] = wait_s
        walk["work_s"] += times.by_version.get(sql.to_uuid(version_id), times.all).mean_s
    return found


def _change(action: EmergencyAction, late: dict[UUID, float]) -> int:
    """Run these the fast way; returns how many. What came after the measure was judged when it was admitted.

    What a waiting job's customer wrote is no longer known: a value that differs from the default counts as written.
    """
    workflow = action.workflow
    assert workflow is not None
    measure = measures.of_row(action)
    live = Channel.objects.filter(workflow=workflow, name=Channel.Name.PRODUCTION).values_list("version_id", flat=True).first()
    waiting = Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(id__in=list(late), status="queued", fast__isnull=True)
    versions: dict[UUID, Version] = {}
    changed = 0
    for job in waiting.filter(queued_at__lte=action.starts_at).order_by("id"):
        version = versions.get(job.version_id) or versions.setdefault(job.version_id, Version.objects.get(id=job.version_id))
        defaults = {one.name: one.default for one in input_rules.exposed_of(version) if not one.required}
        explicit = {name for name, value in job.inputs.items() if name not in defaults or value != defaults[name]}
        made = overflow.changed(measure, version=version, values=job.inputs, explicit=explicit, pinned=job.version_id != live, wait_s=late[job.id])
        if made is None:
            continue
        record = made.record | {"waiting": True, "inputs_before": job.inputs, "asked_version_id": str(job.version_id)}
        _write(job, made.version, made.values, record, cached=bool(workflow.result_cache_s))
        changed += 1
    return changed


def _restore(action: EmergencyAction, ids: list[UUID]) -> int:
    """Give those of these jobs that this measure changed while they waited, and that still wait, what they had asked for; returns how many."""
    versions: dict[str, Version] = {}
    waiting = Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(id__in=ids, status="queued", fast__action=str(action.id))
    cached = bool(action.workflow and action.workflow.result_cache_s)
    restored = 0
    for job in waiting.order_by("id"):
        fast = job.fast or {}
        if not fast.get("waiting"):
            continue
        id_ = str(fast["asked_version_id"])
        version = versions.get(id_) or versions.setdefault(id_, Version.objects.get(id=id_))
        _write(job, version, dict(fast["inputs_before"]), None, cached=cached)
        restored += 1
    return restored


def _write(job: Job, version: Version, values: dict[str, Any], fast: dict[str, Any] | None, *, cached: bool) -> None:
    key = result_cache.key_of(version, values) if cached else ""
    sql.run(_CHANGE, [version.id, version.warm_key, values, key, fast, job.id])
