"""The ledger: append-only lines, one per job and meter. A mistake is reversed and replaced, never edited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.models import UsageEntry
from billing.pricing import Line
from billing.quotas import period_of
from controlplane.kernel.errors import Conflict


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


def post(postings: Iterable[Posting], *, now: datetime) -> int:
    """Write the lines of finished jobs and return their sum in micro-dollars. A second posting of a job violates a constraint."""
    entries = [
        UsageEntry(
            customer_id=p.customer_id,
            plan_revision_id=p.plan_revision_id,
            job_id=p.job_id,
            meter=line.meter,
            quantity=line.quantity,
            unit_price_microusd=line.unit_price,
            amount_microusd=line.amount,
            workflow_slug=p.workflow_slug,
            version_number=p.version_number,
            outcome=p.outcome,
            failure_class=p.failure_class,
            period=period_of(now),
            occurred_at=now,
            recorded_at=now,
            booked_at=now,
        )
        for p in postings
        for line in p.lines
    ]
    UsageEntry.objects.bulk_create(entries)
    return sum(e.amount_microusd for e in entries)


@transaction.atomic
def correct(entry: UsageEntry, *, quantity: Decimal, amount_microusd: int, now: datetime) -> tuple[UsageEntry, UsageEntry]:
    """Reverse `entry` and write its replacement; returns both."""
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
    return reversal, replacement
