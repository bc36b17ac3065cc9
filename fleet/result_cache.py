"""Answer a job with the outputs of an equal one: same version, same inputs, same customer, young enough. It costs nothing and waits for nobody."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from billing.models import Customer
from builds import versions
from builds.models import Version, Workflow
from fleet.models import Job, Output
from fleet.queue import held as holding
from fleet.queue.transitions import Ending, finish


def key_of(version: Version, values: dict[str, Any]) -> str:
    """Equal for jobs that come to the same."""
    return hashlib.sha256(version.sha256.encode() + versions.canonical_json(values)).hexdigest()


def remembered(workflow: Workflow, version: Version, values: dict[str, Any], customer: Customer, *, now: datetime) -> bool:
    """Whether the result cache answers this job: then it waits for nobody, and no measure touches it."""
    if not workflow.result_cache_s:
        return False
    same = Job.objects.filter(result_key=key_of(version, values), customer_id=customer.id, status="succeeded")
    return same.filter(finished_at__gte=now - timedelta(seconds=workflow.result_cache_s)).exists()


def equal(job: Job, *, max_age: timedelta, now: datetime) -> Job | None:
    """The newest job with the same result as `job` would have, if it is young enough."""
    same = Job.objects.filter(result_key=job.result_key, customer_id=job.customer_id, status="succeeded", finished_at__gte=now - max_age)
    return same.order_by("-id").first()


def answer_with(earlier: Job, job: Job, *, now: datetime) -> None:
    """End `job` at once with the outputs of an equal one."""
    copies = [
        Output(
            job=job, attempt=0, index=o.index, name=o.name, kind=o.kind, node=o.node, media_type=o.media_type, blob_id=o.blob_id, size_bytes=o.size_bytes,
            width=o.width, height=o.height, duration_s=o.duration_s, measurements=o.measurements, published=True, created_at=now,
        )
        for o in Output.objects.filter(job=earlier, published=True)
    ]  # fmt: skip
    Output.objects.bulk_create(copies)
    held = holding.one(job.id)
    assert held is not None
    finish(held, Ending("succeeded"), now=now)
    Job.objects.filter(id=job.id).update(copied_from=earlier, source="cache", started_at=now)
    job.refresh_from_db()
