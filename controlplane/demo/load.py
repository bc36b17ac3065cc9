"""Many jobs at once, so that a pool can be watched growing and shrinking: through admission like any other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from billing.models import Customer
from builds.models import Workflow
from controlplane.demo.seeding import MAIN_CUSTOMER
from controlplane.kernel.errors import NotFound
from fleet import admission

SLOW = "night-lights"
MOST = 500


def send(*, jobs: int, workflow: str = SLOW, clock: Callable[[], datetime]) -> list[UUID]:
    """Send `jobs` of `workflow` for the demo's main customer; their ids. Raises NotFound without the demo, or what admission refuses."""
    customer = Customer.objects.select_related("plan_revision").filter(slug=MAIN_CUSTOMER).first()
    held = Workflow.objects.filter(slug=workflow).first()
    if customer is None or held is None:
        missing = f"workflow {workflow}" if customer is not None else f"customer {MAIN_CUSTOMER}"
        raise NotFound("demo_missing", f"There is no {missing}.", "The demo makes it: `make up` without DEMO=0.")
    return [
        admission.submit(customer=customer, api_key=None, workflow=held, inputs={}, priority="normal", source="demo", now=clock()).job.id for _ in range(jobs)
    ]
