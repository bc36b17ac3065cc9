"""Fast mode for jobs that wait already: changed in one transaction, in their places, for no more than they were quoted; and put back when it is ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from builds import inputs as input_rules
from builds.models import Channel, Version
from controlplane.kernel import sql
from fleet import admission, job_times, measures, overflow
from fleet.models import EmergencyAction, Job

BATCH = 500

_CHANGE = """
UPDATE fleet_job SET version_id = %s, warm_key = %s, inputs = %s, result_key = %s, fast = %s, revision = revision + 1
WHERE id = %s AND status = 'queued'
"""


def change(action: EmergencyAction, now: datetime) -> int:
    """Run those of the workflow's waiting jobs the fast way that would wait longer than agreed; returns how many. In the caller's transaction.

    What a waiting job's customer wrote is no longer known: a value that differs from the default counts as written.
    """
    workflow = action.workflow
    assert workflow is not None
    measure = measures.of_row(action)
    live = Channel.objects.filter(workflow=workflow, name=Channel.Name.PRODUCTION).values_list("version_id", flat=True).first()
    versions: dict[UUID, Version] = {}
    changed = 0
    for job, wait_s in _late(action, now=now):
        version = versions.get(job.version_id) or versions.setdefault(job.version_id, Version.objects.get(id=job.version_id))
        defaults = {one.name: one.default for one in input_rules.exposed_of(version) if not one.required}
        explicit = {name for name, value in job.inputs.items() if name not in defaults or value != defaults[name]}
        made = overflow.changed(measure, version=version, values=job.inputs, explicit=explicit, pinned=job.version_id != live, wait_s=wait_s)
        if made is None:
            continue
        record = made.record | {"waiting": True, "inputs_before": job.inputs, "asked_version_id": str(job.version_id)}
        _write(job, made.version, made.values, record, cached=bool(workflow.result_cache_s))
        changed += 1
    return changed


def restore(action: EmergencyAction) -> int:
    """Give the jobs that were changed while they waited, and still wait, what they had asked for; returns how many."""
    versions: dict[str, Version] = {}
    waiting = Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(pool_id=action.pool_id, status="queued", fast__action=str(action.id))
    restored = 0
    for job in waiting.order_by("id"):
        fast = job.fast or {}
        if not fast.get("waiting"):
            continue
        id_ = str(fast["asked_version_id"])
        version = versions.get(id_) or versions.setdefault(id_, Version.objects.get(id=id_))
        cached = bool(action.workflow and action.workflow.result_cache_s)
        _write(job, version, dict(fast["inputs_before"]), None, cached=cached)
        restored += 1
    return restored


def _late(action: EmergencyAction, *, now: datetime) -> Iterator[tuple[Job, float]]:
    """The workflow's waiting jobs that are too far back, locked, each with its wait."""
    pool = action.pool
    times = job_times.of_pool(pool, now=now)
    ready, busy, live = overflow.workers(pool.id)
    line = Job.objects.filter(pool=pool, status="queued").exclude(source=Job.SMOKE).order_by("priority", "fair_tag", "id")
    work_s = 0.0
    found: dict[UUID, float] = {}
    for id_, workflow_id, version_id in line.values_list("id", "workflow_id", "version_id"):
        if workflow_id == action.workflow_id:
            wait_s = overflow.wait(work_s, ready=ready, busy=busy, live=live, mean_s=times.all.mean_s, cold_s=times.cold.p50_s)
            if wait_s > (action.overflow_s or 0.0):
                found[id_] = wait_s
        work_s += times.by_version.get(version_id, times.all).mean_s
    ids = list(found)
    for start in range(0, len(ids), BATCH):
        held = Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(id__in=ids[start : start + BATCH], status="queued", fast__isnull=True)
        for job in held.order_by("id"):
            yield job, found[job.id]


def _write(job: Job, version: Version, values: dict[str, Any], fast: dict[str, Any] | None, *, cached: bool) -> None:
    key = admission.result_key_of(version, values) if cached else ""
    sql.run(_CHANGE, [version.id, version.warm_key, values, key, fast, job.id])
