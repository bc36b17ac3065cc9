"""A line of the customers table: the plan's account beside what their jobs did. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from billing.models import Customer
from billing.queries import NEAR, Standing
from controlplane.console import numbers
from fleet.queries_traffic import Counts

SUCCESS_TARGET = 0.95
FEW_JOBS = 20


@dataclass(frozen=True, slots=True)
class CustomerRow:
    customer: Customer
    standing: Standing
    counts: Counts
    run_p95: float | None
    spark: list[float]

    @property
    def used(self) -> float | None:
        return self.standing.share

    @property
    def near(self) -> bool:
        return (self.used or 0.0) >= NEAR

    @property
    def full(self) -> bool:
        return (self.used or 0.0) >= 0.99

    @property
    def failing(self) -> bool:
        """Under the target, on enough jobs to say so."""
        return self.counts.success is not None and self.counts.jobs >= FEW_JOBS and self.counts.success < SUCCESS_TARGET

    @property
    def suspended(self) -> bool:
        return self.customer.status == Customer.Status.SUSPENDED

    @property
    def used_kind(self) -> str:
        return "bad" if self.full else "warn" if self.near else ""

    @property
    def spark_label(self) -> str:
        return f"{self.customer.slug}: jobs over the range"

    @property
    def urgency(self) -> tuple[int, float, str]:
        rank = 0 if self.full and not self.suspended else 1 if self.failing else 2 if self.near else 4 if self.suspended else 3
        return rank, -(self.used or 0.0), self.customer.slug

    @property
    def next(self) -> str:
        """What to do next, or an empty string."""
        if self.suspended:
            return "Suspended: new requests are refused"
        if self.full:
            return "At its limit: offer a larger plan"
        if self.failing:
            return f"{numbers.plural(self.counts.bad, 'job')} failed: look at the causes"
        if self.near:
            return "Near its limit: offer a larger plan"
        if not self.counts.jobs:
            return "No jobs in this range"
        return ""


SORTS = {
    "urgency": lambda r: r.urgency,
    "name": lambda r: r.customer.name.lower(),
    "success": lambda r: (r.counts.success is None, r.counts.success or 0.0, r.customer.slug),
    "jobs": lambda r: (r.counts.jobs, r.customer.slug),
    "run": lambda r: (r.run_p95 or 0.0, r.customer.slug),
    "revenue": lambda r: (r.counts.price_microusd, r.customer.slug),
    "margin": lambda r: (r.counts.margin is None, r.counts.margin or 0.0, r.customer.slug),
    "used": lambda r: (r.used or 0.0, r.customer.slug),
}
FILTERS = {"near": lambda r: r.near and not r.suspended, "failing": lambda r: r.failing, "suspended": lambda r: r.suspended}


def ordered(rows: Sequence[CustomerRow], sort: str) -> list[CustomerRow]:
    """By ?sort=name or ?sort=-name; most urgent first otherwise."""
    key = sort.lstrip("-")
    if key not in SORTS:
        return sorted(rows, key=SORTS["urgency"])
    return sorted(rows, key=SORTS[key], reverse=sort.startswith("-"))


def headline(rows: Sequence[CustomerRow]) -> str:
    """The answer: who needs something."""
    near = [r for r in rows if FILTERS["near"](r)]
    failing = [r for r in rows if r.failing and not r.suspended]
    if not rows:
        return "No customers yet"
    parts = []
    if failing:
        parts.append(f"{numbers.plural(len(failing), 'customer')} with too many failures")
    if near:
        parts.append(
            f"{len(near)} near {'its' if len(near) == 1 else 'their'} limit"
            if parts
            else f"{numbers.plural(len(near), 'customer')} near {'its' if len(near) == 1 else 'their'} limit"
        )
    if parts:
        return ", ".join(parts)
    return "All customers are well" if len(rows) > 1 else f"{rows[0].customer.name} is well"
