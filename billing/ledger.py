"""The ledger: append-only lines, one per job and meter. A mistake is reversed and replaced, never edited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing import quotas
from billing.models import UsageEntry
from billing.pricing import Line
from billing.quotas import period_of
from controlplane.kernel import sql
from controlplane.kernel.errors import Conflict, Invalid
from controlplane.kernel.ids import uuid7


@dataclass(frozen=True, slots=True)
class Posting:
    """What a finished job writes into the ledger."""

    job_id: UUID
    customer_id: UUID
    plan_revision_id: int
    workflow_slug: str
    version_number: int
    outcome: str
    failure_class: str
    lines: list[Line]


_INSERT = """
INSERT INTO billing_usageentry (id, customer_id, plan_revision_id, job_id, meter, quantity, unit_price_microusd, amount_microusd,
  workflow_slug, version_number, outcome, failure_class, revision, period, occurred_at, recorded_at, booked_at)
VALUES {rows}
"""


def post(posting: Posting, *, now: datetime) -> int:
    """Write the lines of a finished job and return their sum in micro-dollars. A second posting of a job violates a constraint."""
    values: list[object] = []
    for line in posting.lines:
        values += [
            uuid7(), posting.customer_id, posting.plan_revision_id, posting.job_id, line.meter, line.quantity, line.unit_price, line.amount,
            posting.workflow_slug, posting.version_number, posting.outcome, posting.failure_class, 1, period_of(now), now, now, now,
        ]  # fmt: skip
    sql.send(_INSERT.format(rows=", ".join([f"({sql.marks(17)})"] * len(posting.lines))), values)
    return sum(line.amount for line in posting.lines)


@transaction.atomic
def correct(entry: UsageEntry, *, quantity: Decimal, amount_microusd: int, now: datetime) -> tuple[UsageEntry, UsageEntry]:
    """Reverse `entry` and write its replacement; returns both. What the job's month has spent follows."""
    if quantity < 0 or amount_microusd < 0:
        raise Invalid("correction_negative", "A corrected line cannot be negative.", "Correct it to zero at least; only reversals are negative.")
    entry = UsageEntry.objects.select_for_update().get(id=entry.id)
    if entry.reverses_id is not None or UsageEntry.objects.filter(reverses=entry).exists():
        raise Conflict("entry_already_reversed", "This ledger line was reversed before.", "Correct its replacement instead.")
    same = {
        "customer_id": entry.customer_id, "plan_revision_id": entry.plan_revision_id, "job_id": entry.job_id, "meter": entry.meter,
        "unit_price_microusd": entry.unit_price_microusd, "workflow_slug": entry.workflow_slug, "version_number": entry.version_number,
        "outcome": entry.outcome, "failure_class": entry.failure_class, "period": period_of(now), "occurred_at": entry.occurred_at,
        "recorded_at": now, "booked_at": now,
    }  # fmt: skip
    reversal = UsageEntry.objects.create(**same, quantity=-entry.quantity, amount_microusd=-entry.amount_microusd, revision=entry.revision, reverses=entry)
    replacement = UsageEntry.objects.create(**same, quantity=quantity, amount_microusd=amount_microusd, revision=entry.revision + 1)
    quotas.adjust(customer_id=entry.customer_id, difference_microusd=amount_microusd - entry.amount_microusd, occurred_at=entry.occurred_at)
    return reversal, replacement
