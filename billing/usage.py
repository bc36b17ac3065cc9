"""The one door to a customer's ledger lines: which they are, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import TruncDate

from billing.models import UsageEntry


@dataclass(frozen=True, slots=True)
class Total:
    """What one workflow came to on one day (UTC)."""

    day: date
    workflow: str
    jobs: int
    gpu_seconds: Decimal
    amount_microusd: int


def entries_of(customer_id: UUID, *, since: datetime, until: datetime) -> QuerySet[UsageEntry]:
    """This customer's lines booked from `since` until just before `until`."""
    return UsageEntry.objects.filter(customer_id=customer_id, booked_at__gte=since, booked_at__lt=until)


def totals(entries: QuerySet[UsageEntry]) -> list[Total]:
    """`entries` by day and workflow; their amounts add up to the sum of the lines, corrections included."""
    rows = (
        entries.annotate(day=TruncDate("booked_at", tzinfo=UTC))
        .values("day", "workflow_slug", "meter")
        .order_by("day", "workflow_slug")
        .annotate(quantity=Sum("quantity"), amount=Sum("amount_microusd"), lines=Count("id"))
    )
    found: dict[tuple[date, str], list[Decimal | int]] = {}
    for row in rows:
        sums = found.setdefault((row["day"], row["workflow_slug"]), [0, Decimal(0), 0])
        if row["meter"] == UsageEntry.Meter.JOB:
            sums[0] += int(row["quantity"])
        else:
            sums[1] += Decimal(row["quantity"])
        sums[2] += row["amount"]
    return [Total(day, workflow, int(jobs), Decimal(seconds), int(amount)) for (day, workflow), (jobs, seconds, amount) in found.items()]


def oldest_first(entries: QuerySet[UsageEntry]) -> Iterator[UsageEntry]:
    """Every line, read in chunks."""
    return entries.order_by("booked_at", "id").iterator(chunk_size=2000)
