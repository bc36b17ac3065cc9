"""When a batch would be done: the pool as it stands, played forward with the batch added (`fleet.planning.finishing`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from billing.models import Customer
from controlplane.kernel.errors import Invalid, Unavailable
from fleet import estimates, present
from fleet.models import Pool
from fleet.planning import finishing
from fleet.planning.finishing import Batch, Finish

LONGEST = timedelta(days=60)
"""A batch that would be done later than this is refused: nobody can say so far ahead."""


def of(
    pool: Pool,
    customer: Customer | None,
    jobs: int,
    took: Sequence[float] | None,
    *,
    rank: int,
    at_once: int | None,
    begins: datetime,
    announce: bool,
    now: datetime,
) -> tuple[Finish, dict[str, Any]]:
    """When `jobs` jobs that take as long as those in `took` would be done from `begins` on, and what that rests on.

    `at_once` is how many of them may wait or run at a time, by the customer's plan; None for an operator's look.
    Raises Unavailable where nobody can say, Invalid where it would be too far off.
    """
    starts_in = (begins - now).total_seconds()
    stands, notes = present.of_pool(pool, customer_id=customer.id if customer else None, rank=rank, jobs=jobs, starts_in_s=starts_in, now=now)
    if took is None:
        took = stands.seconds
    most = max(stands.terms.maximum, stands.live)
    most = most if at_once is None else min(most, at_once)
    _possible(jobs, sum(took) / len(took) if took else estimates.UNMEASURED_S, most=most)
    inner = min(starts_in, present.FAR_S)
    batch = Batch(jobs=jobs, starts_in_s=inner, seconds=took, announced=announce, at_once=at_once)
    found = finishing.finish(stands, batch)
    if found is None:
        raise Unavailable(
            "no_workers", "No worker can run these jobs at the moment, so nobody can say when they would be done.", "Try again later.",
            headers={"Retry-After": "300"},
        )  # fmt: skip
    later = starts_in - inner
    done = Finish(found.p50_s + later, found.p90_s + later, found.runs, found.took_s, found.peak)
    if done.p50_s - starts_in > LONGEST.total_seconds():
        raise _too_large((done.p50_s - starts_in) / 86400, most)
    if not took:
        notes.insert(0, "This version has not been measured yet, so price and time are rough.")
    elif len(took) < 20:
        notes.insert(0, f"Only {len(took)} runs of this version were measured, so the times spread widely.")
    mean = sum(took) / len(took) if took else None
    basis = {
        "jobs_ahead": stands.ahead,
        "at_once_now": stands.ready,
        "at_once_most": max(stands.terms.maximum, stands.live),
        "seconds_per_job": round(mean, 3) if mean is not None else None,
        "measured_runs": len(took),
        "others_per_hour": round(stands.rates[0] * 3600, 1),
        "simulations": done.runs,
        "notes": notes,
    }
    return done, basis


def _possible(jobs: int, mean_s: float, *, most: int) -> None:
    """Refuse before it is simulated what cannot be done in time even by all workers at once."""
    days = jobs * mean_s / max(1, most) / 86400
    if days > LONGEST.days:
        raise _too_large(days, most)


def _too_large(days: float, most: int) -> Invalid:
    return Invalid(
        "batch_too_large",
        f"These jobs would take about {days:,.0f} days with {most:,} running at once, the most there can be.",
        f"Ask for fewer jobs, or talk to us about more capacity; a quote reaches {LONGEST.days} days.",
        details={"field": "jobs", "most_at_once": most},
    )
