"""Quotes: what a batch would cost and when it would be done, kept so that they can be read again and announced.

The price is that of the plan; the most is what admission would reserve for the jobs by what is measured now. The finish is played
forward from the pool as it stands (`fleet.quote_finish`). A quote reserves nothing; announcing it lets the fleet make ready.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from billing import pricing, quotas
from billing.models import Customer, PlanRevision
from builds.models import Version, Workflow
from controlplane.kernel import money
from controlplane.kernel.errors import Conflict, Invalid, LimitExceeded, NotFound, OutOfMoney, Unavailable
from controlplane.kernel.ids import parse_uuid, uuid7
from fleet import admission, announcing, estimates, present, quote_finish
from fleet.costs import of_seconds
from fleet.models import PlannedDemand, Pool, Quote

MOST_JOBS = admission.MAX_QUEUE
FURTHEST = timedelta(days=30)
KEPT = timedelta(minutes=15)
KEPT_MOST = timedelta(hours=24)
A_MINUTE = 60
"""Quotes a customer may ask for in one: each is a simulation."""
MOST_ANNOUNCED = 20
SENT_WITHIN = timedelta(minutes=5)
"""How long after its start an announced batch may take to arrive."""


@dataclass(frozen=True, slots=True)
class Made:
    """The quote, and whether it is an earlier one replayed."""

    quote: Quote
    replayed: bool = False


def make(
    *,
    customer: Customer,
    workflow: Workflow,
    version: Version,
    jobs: int,
    starts_at: datetime | None = None,
    announce: bool = False,
    idempotency_key: str = "",
    body_sha256: str = "",
    now: datetime,
) -> Made:
    """A quote for `jobs` jobs of `version`, all sent at `starts_at` (now unless said). Raises a WorkflowError.

    The same `idempotency_key` and body give the first quote again.
    """
    quote_id = uuid.uuid5(customer.id, f"quote:{idempotency_key}") if idempotency_key else uuid7()
    if idempotency_key and (before := _earlier(quote_id, body_sha256)):
        return Made(before, replayed=True)
    begins = _start(starts_at, now)
    if type(jobs) is not int or not 1 <= jobs <= MOST_JOBS:
        raise Invalid(
            "jobs_invalid", f"A quote is for 1 to {MOST_JOBS:,} jobs, the most that may wait at once.", "Ask for a larger batch in parts.",
            details={"field": "jobs", "most": MOST_JOBS},
        )  # fmt: skip
    if Quote.objects.filter(customer=customer, created_at__gt=now - timedelta(minutes=1)).count() >= A_MINUTE:
        raise LimitExceeded("quotes_limit", f"More than {A_MINUTE} quotes in this minute.", "Try again in a minute.", headers={"Retry-After": "60"})
    pool = _pool(workflow)
    plan = customer.plan_revision
    took, charged = present.of_version(version)
    expected, most = _price(version, plan, jobs, charged, now=now)
    limits = _limits(customer, plan, jobs, expected, now=now)
    rank = max(admission.PRIORITIES["normal"], admission.PRIORITIES.get(plan.max_priority, 1))
    own = min(jobs, plan.max_active_jobs)
    finish, stands = quote_finish.of(pool, customer, jobs, took, rank=rank, at_once=own, begins=begins, announce=announce, now=now)
    quote = Quote(
        id=quote_id,
        customer=customer,
        workflow=workflow,
        version=version,
        pool=pool,
        jobs=jobs,
        starts_at=begins,
        price_microusd=expected,
        most_microusd=most,
        finish_p50_at=now + timedelta(seconds=finish.p50_s),
        finish_p90_at=now + timedelta(seconds=finish.p90_s),
        basis={**stands, "limits": limits, "body_sha256": body_sha256},
        created_at=now,
        expires_at=max(now + KEPT, min(begins, now + KEPT_MOST)),
    )
    try:
        with transaction.atomic():
            quote.save(force_insert=True)
            if announce:
                _announce(quote, customer, now=now)
    except IntegrityError:  # the same key in the same instant
        before = _earlier(quote_id, body_sha256)
        if before is None:
            raise
        return Made(before, replayed=True)
    return Made(quote)


@dataclass(frozen=True, slots=True)
class Look:
    """A batch as an operator asks for it: when it would be done, and what its work costs us."""

    finish_p50_at: datetime
    finish_p90_at: datetime
    cost_microusd: int
    work_s: float
    basis: dict[str, Any]


def look(*, pool: Pool, version: Version | None, jobs: int, starts_at: datetime | None = None, announced: bool = False, now: datetime) -> Look:
    """When `jobs` jobs on `pool` would be done, for nobody in particular; keeps nothing. Raises as `make` does."""
    begins = _start(starts_at, now)
    if type(jobs) is not int or not 1 <= jobs <= MOST_JOBS:
        raise Invalid("jobs_invalid", f"A batch has 1 to {MOST_JOBS:,} jobs.", "Ask for a larger one in parts.", details={"field": "jobs"})
    took = present.of_version(version)[0] if version is not None else None
    done, basis = quote_finish.of(pool, None, jobs, took, rank=admission.PRIORITIES["normal"], at_once=None, begins=begins, announce=announced, now=now)
    work = jobs * (basis["seconds_per_job"] or estimates.UNMEASURED_S)
    return Look(now + timedelta(seconds=done.p50_s), now + timedelta(seconds=done.p90_s), of_seconds(pool.price_per_hour_microusd, work), work, basis)


def announce(quote: Quote, *, customer: Customer, now: datetime) -> Quote:
    """Tell the fleet of the batch, so that workers are ready for it. Twice changes nothing. Raises Conflict, OutOfMoney or LimitExceeded."""
    with transaction.atomic():
        held = of_customer(customer).select_for_update(of=("self",)).get(id=quote.id)
        if held.planned is not None and held.planned.canceled_at is None:
            return held
        if held.expires_at < now:
            raise Conflict(
                "quote_expired", "This quote has expired.", "Ask for a new one and announce that.", details={"expired_at": held.expires_at.isoformat()}
            )
        _announce(held, customer, now=now)
    return held


def withdraw(quote: Quote, *, customer: Customer, now: datetime) -> Quote:
    """Take the announcement back. Twice changes nothing."""
    with transaction.atomic():
        held = of_customer(customer).select_for_update(of=("self",)).get(id=quote.id)
        if held.planned is not None and held.planned.canceled_at is None:
            held.planned = announcing.cancel(held.planned, actor=_actor(customer), now=now)
    return held


def of_customer(customer: Customer) -> QuerySet[Quote]:
    """This customer's quotes, ready to be shown, newest first."""
    return _shown().filter(customer=customer).order_by("-created_at", "-id")


def one(customer: Customer, text: object) -> Quote:
    """The customer's quote with the id in `text`; raises NotFound, the same for somebody else's as for none."""
    quote_id = parse_uuid(text)
    found = of_customer(customer).filter(id=quote_id).first() if quote_id else None
    if found is None:
        raise NotFound("quote_not_found", "There is no such quote.", "Check the id and the key it belongs to.")
    return found


def as_json(quote: Quote, *, now: datetime) -> dict[str, Any]:
    """A quote as its customer sees it."""
    basis = dict(quote.basis)
    limits = basis.pop("limits", [])
    for kept in ("body_sha256", "others_per_hour", "at_once_now", "at_once_most", "own_at_once"):  # what others send and how large a pool is
        basis.pop(kept, None)
    planned = quote.planned if quote.planned is not None and quote.planned.canceled_at is None else None
    return {
        "id": str(quote.id),
        "workflow": quote.workflow.slug,
        "version": quote.version.number,
        "jobs": quote.jobs,
        "starts_at": _when(quote.starts_at),
        "price_usd": money.to_usd(quote.price_microusd),
        "most_usd": money.to_usd(quote.most_microusd),
        "finish_p50_at": _when(quote.finish_p50_at),
        "finish_p90_at": _when(quote.finish_p90_at),
        "basis": basis,
        "limits": limits,
        "announced": planned is not None,
        "created_at": _when(quote.created_at),
        "expires_at": _when(quote.expires_at),
        "expired": quote.expires_at < now,
    }


def digest(body: dict[str, Any]) -> str:
    """What an Idempotency-Key is bound to."""
    return hashlib.sha256(json.dumps(["quote", body], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _shown() -> QuerySet[Quote]:
    heavy = ("graph", "ui_graph", "inputs", "schema", "lock", "findings", "message")
    return Quote.objects.select_related("workflow", "version", "planned").defer(*(f"version__{name}" for name in heavy))


def _earlier(quote_id: UUID, body_sha256: str) -> Quote | None:
    found = _shown().filter(id=quote_id).first()
    if found is not None and found.basis.get("body_sha256") != body_sha256:
        raise Invalid(
            "idempotency_key_reused",
            "This Idempotency-Key was used before with another body.",
            "Use a new key for a new request; send the very same body to replay the first.",
            details={"quote": str(found.id)},
        )
    return found


def _start(starts_at: datetime | None, now: datetime) -> datetime:
    if starts_at is None or now - announcing.LATE <= starts_at < now:
        return now
    if not now <= starts_at <= now + FURTHEST:
        raise Invalid(
            "starts_at_invalid", f"A batch starts between now and {FURTHEST.days} days from now.", "Correct starts_at, or leave it out for now.",
            details={"field": "starts_at"},
        )  # fmt: skip
    return starts_at


def _pool(workflow: Workflow) -> Pool:
    pool = Pool.objects.filter(slug=workflow.pool_slug).first()
    if pool is None:
        raise Unavailable("pool_missing", "No pool serves this workflow at the moment.", "Try again later.", headers={"Retry-After": "60"})
    return pool


def _price(version: Version, plan: PlanRevision, jobs: int, charged: list[float], *, now: datetime) -> tuple[int, int]:
    """What the jobs are expected to cost, and the most they can by what is measured now."""
    terms = pricing.Terms(plan.price_per_job_microusd, plan.price_per_gpu_second_microusd)
    measured = estimates.of_version(version.id, now=now)
    mean_s = sum(charged) / len(charged) if charged else measured.p50_s
    most = pricing.quote(terms, expected_s=measured.p95_s)
    each = terms.per_job + terms.per_gpu_second * Decimal(str(round(mean_s, 9)))
    return min(money.amount(jobs, each), most * jobs), most * jobs


def _limits(customer: Customer, plan: PlanRevision, jobs: int, expected: int, *, now: datetime) -> list[dict[str, Any]]:
    """Limits of the plan that the batch as a whole passes: it can be run, but not sent in one go."""
    found: list[dict[str, Any]] = []
    if jobs > plan.max_active_jobs:
        message = f"Your plan lets {plan.max_active_jobs:,} jobs wait or run at once: send the rest as they end."
        found.append({"limit": "active_jobs", "allowed": plan.max_active_jobs, "message": message})
    left = quotas.standing(quotas.open_account(customer.id, now=now), plan, now=now).money_left_microusd
    if expected > left:
        message = f"{money.display(left)} of this month's limit is left: the batch passes it unless the limit is raised."
        found.append({"limit": "month", "allowed": money.to_usd(left), "message": message})
    return found


def _announce(quote: Quote, customer: Customer, *, now: datetime) -> None:
    """Only what the customer could pay for is announced, or anybody could have workers started for nothing.

    Two at once meet on the row of the account: the second sees what the first announced.
    """
    left = quotas.standing(quotas.hold(customer.id, now=now), customer.plan_revision, now=now).money_left_microusd
    open_ones = list(announcing.open_ones(now=now).filter(customer=customer))
    if len(open_ones) >= MOST_ANNOUNCED:
        raise LimitExceeded("announcements_limit", f"{MOST_ANNOUNCED} batches are announced already.", "Withdraw one first.")
    told = sum(Quote.objects.filter(planned__in=open_ones).values_list("price_microusd", flat=True))
    if quote.price_microusd + told > left:
        raise OutOfMoney(
            "monthly_limit_reached",
            f"The announced batches would cost {money.display(quote.price_microusd + told)}, and {money.display(left)} of this month's limit is left.",
            "Announce fewer jobs, or raise the monthly limit.",
            details={"left_usd": money.to_usd(left), "needed_usd": money.to_usd(quote.price_microusd + told)},
        )
    seconds = quote.basis.get("seconds_per_job")
    begins = max(quote.starts_at, now)
    quote.planned = announcing.batch(
        pool=quote.pool,
        jobs=quote.jobs,
        starts_at=begins,
        ends_at=begins + SENT_WITHIN,
        workflow=quote.workflow,
        customer=customer,
        work_s=quote.jobs * seconds if isinstance(seconds, int | float) else None,
        name=f"{quote.jobs:,} jobs of {quote.workflow.slug}",
        actor=_actor(customer),
        now=now,
    )
    quote.save(update_fields=["planned"])


def planned_of(customer: Customer, *, now: datetime) -> QuerySet[PlannedDemand]:
    """What this customer has announced and is not over."""
    return announcing.open_ones(now=now).filter(customer=customer)


def _actor(customer: Customer) -> str:
    return f"customer {customer.slug}"


def _when(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
