"""What a job costs its customer. Pure: terms and measured quantities in, micro-dollars out."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from controlplane.kernel import money

# Failures that are not the customer's doing are metered and costed, but priced at zero.
FREE_CLASSES = frozenset({"platform", "capacity", "quality", "external", "workflow"})


@dataclass(frozen=True, slots=True)
class Terms:
    """Unit prices in micro-dollars."""

    per_job: Decimal
    per_gpu_second: Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """One meter of one job."""

    meter: str
    quantity: Decimal
    unit_price: Decimal
    amount: int


def quote(terms: Terms, *, expected_s: float, margin: float = 1.5) -> int:
    """The most a job may cost: what is reserved at admission. `expected_s` is the p95 run time where measured."""
    seconds = Decimal(str(round(max(expected_s, 1.0) * margin, 3)))
    return money.amount(1, terms.per_job) + money.amount(seconds, terms.per_gpu_second)


def settle(terms: Terms, *, outcome: str, failure_class: str, gpu_seconds: float, quote_microusd: int) -> list[Line]:
    """The ledger lines of a finished job; their sum never passes the quote.

    A succeeded job pays per job and per GPU-second. A job the customer canceled, or that failed on the customer's own
    input, pays only the seconds it used. Every other end is metered at a price of zero, so that unreliability shows as quantity.
    """
    seconds = Decimal(str(round(max(gpu_seconds, 0.0), 6)))
    per_job = terms.per_job if outcome == "succeeded" else Decimal(0)
    charged = outcome == "succeeded" or (outcome in ("failed", "canceled") and failure_class not in FREE_CLASSES)
    per_second = terms.per_gpu_second if charged else Decimal(0)
    job = min(money.amount(1, per_job), quote_microusd)
    gpu = min(money.amount(seconds, per_second), quote_microusd - job)
    return [Line("job", Decimal(1), per_job, job), Line("gpu_second", seconds, per_second, gpu)]
