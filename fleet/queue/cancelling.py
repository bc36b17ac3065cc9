"""Stop a job on request. A running one is asked through its worker's next heartbeat, so the attempt fences it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from controlplane.kernel.errors import Conflict, NotFound
from fleet import wake
from fleet.models import Job
from fleet.queue.completing import CANCELED
from fleet.queue.transitions import Ending, finish


@transaction.atomic
def cancel(*, job_id: UUID, now: datetime) -> Job:
    """Cancel at once while queued, else ask the worker. Canceling twice changes nothing; a finished job raises Conflict."""
    job = Job.objects.select_for_update(of=("self",)).select_related("workflow", "version", "plan_revision", "customer").filter(id=job_id).first()
    if job is None:
        raise NotFound("job_not_found", "There is no such job.", "Check the id and the key it belongs to.")
    if job.status == "queued":
        finish(job, Ending("canceled", failure_class="customer_cancel", error=CANCELED), now=now)
    elif job.status == "running":
        if job.cancel_asked_at is None:
            Job.objects.filter(id=job.id).update(cancel_asked_at=now, revision=F("revision") + 1)
            job.cancel_asked_at = now
            wake.job(job.id)
    elif job.status != "canceled":
        raise Conflict("job_finished", f"The job is already {job.status}.", "Nothing is left to cancel.", details={"status": job.status})
    return job
