"""Stop a job on request. A running one is asked through its worker's next heartbeat, so the attempt fences it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from controlplane.kernel import sql
from controlplane.kernel.errors import Conflict, NotFound
from fleet.models import Job
from fleet.queue import held as holding
from fleet.queue.completing import CANCELED
from fleet.queue.transitions import Ending, finish


@transaction.atomic
def cancel(*, job_id: UUID, now: datetime) -> Job:
    """Cancel at once while queued, else ask the worker. Canceling twice changes nothing; a finished job raises Conflict."""
    held = holding.one(job_id)
    if held is None:
        raise NotFound("job_not_found", "There is no such job.", "Check the id and the key it belongs to.")
    if held.status == "queued":
        finish(held, Ending("canceled", failure_class="customer_cancel", error=CANCELED), now=now)
    elif held.status == "running":
        if held.cancel_asked_at is None:
            sql.run("UPDATE fleet_job SET cancel_asked_at = %s, revision = revision + 1 WHERE id = %s", [now, job_id])
    elif held.status != "canceled":
        raise Conflict("job_finished", f"The job is already {held.status}.", "Nothing is left to cancel.", details={"status": held.status})
    return Job.objects.select_related("workflow", "version", "customer").get(id=job_id)
