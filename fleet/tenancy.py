"""The one door to what belongs to a customer. API, stream and portal reach jobs, outputs and files through here and nowhere else.

What is not the caller's does not exist: the refusal for somebody else's id is the one for an id nobody has.
"""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from controlplane.kernel.errors import NotFound
from controlplane.kernel.ids import parse_uuid
from fleet.models import CustomerFile, Job, Output

# A job is shown with its workflow's slug and its version's number; the graphs beside them stay in the database.
_HEAVY = (
    *("workflow__capabilities", "workflow__description"),
    *(f"version__{name}" for name in ("graph", "ui_graph", "inputs", "schema", "lock", "findings", "message")),
)


def jobs_of(customer_id: UUID) -> QuerySet[Job]:
    """This customer's jobs, ready to be presented."""
    return Job.objects.filter(customer_id=customer_id).select_related("workflow", "version").defer(*_HEAVY)


def job_of(customer_id: UUID, text: object) -> Job:
    """The customer's job with the id in `text`; raises NotFound."""
    job_id = parse_uuid(text)
    job = jobs_of(customer_id).filter(id=job_id).first() if job_id else None
    if job is None:
        raise no_such_job()
    return job


def outputs_of(customer_id: UUID) -> QuerySet[Output]:
    """Outputs a customer may see: those of the attempt that succeeded."""
    return Output.objects.filter(job__customer_id=customer_id, published=True)


def files_of(customer_id: UUID) -> QuerySet[CustomerFile]:
    """The files this customer sent."""
    return CustomerFile.objects.filter(customer_id=customer_id)


def no_such_job() -> NotFound:
    """The refusal for any job that is not the caller's."""
    return NotFound("job_not_found", "There is no such job.", "Check the id and the key it belongs to.")
