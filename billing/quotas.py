"""Hard limits, kept exactly: money, concurrency and requests per minute live in one row that one statement changes.

`reserve` is a single conditional UPDATE, so two requests can never both take the last place. Only when it
changes nothing is the row read again, to say which limit stood in the way.

A request's `now` was read before it waited for the row, so it may be older than what the row says: minutes and
months go on and never back, or a late one would wipe what the new one has counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from billing.models import Account, PlanRevision
from controlplane.kernel import money, sql
from controlplane.kernel.errors import LimitExceeded, OutOfMoney, WorkflowError


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an account stands after a request: for the RateLimit fields and /v1/limits."""

    requests_limit: int
    requests_left: int
    reset_s: int
    active_limit: int
    active_left: int
    money_limit_microusd: int
    money_left_microusd: int

    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"requests";q={self.requests_limit};w=60, "active-jobs";q={self.active_limit}',
            "RateLimit": f'"requests";r={self.requests_left};t={self.reset_s}, "active-jobs";r={self.active_left}',
        }


def period_of(now: datetime) -> str:
    """The calendar month (UTC) an amount is booked in."""
    return f"{now:%Y-%m}"


_RESERVE = """
UPDATE billing_account SET
  settled_microusd = CASE WHEN period >= %(period)s THEN settled_microusd ELSE 0 END,
  period = CASE WHEN period > %(period)s THEN period ELSE %(period)s END,
  reserved_microusd = reserved_microusd + %(amount)s,
  active_jobs = active_jobs + %(jobs)s,
  minute_requests = CASE WHEN minute IN (%(minute)s, %(minute)s + 1) THEN minute_requests + 1 ELSE 1 END,
  minute = CASE WHEN minute = %(minute)s + 1 THEN minute ELSE %(minute)s END
WHERE customer_id = %(customer)s
  AND CASE WHEN period >= %(period)s THEN settled_microusd ELSE 0 END + reserved_microusd + %(amount)s <= %(money_limit)s
  AND active_jobs + %(jobs)s <= %(active_limit)s
  AND CASE WHEN minute IN (%(minute)s, %(minute)s + 1) THEN minute_requests ELSE 0 END < %(requests_limit)s
RETURNING settled_microusd, reserved_microusd, active_jobs, minute_requests
"""

# Names are told apart once, here; the statement itself takes positions.
_RESERVE_NAMES = re.findall(r"%\((\w+)\)s", _RESERVE)
_RESERVE = re.sub(r"%\(\w+\)s", "%s", _RESERVE)

_RELEASE = """
UPDATE billing_account SET
  settled_microusd = CASE WHEN period > %s THEN settled_microusd WHEN period = %s THEN settled_microusd + %s ELSE %s END,
  period = CASE WHEN period > %s THEN period ELSE %s END,
  reserved_microusd = reserved_microusd - %s,
  active_jobs = active_jobs - %s
WHERE customer_id = %s
"""


def open_account(customer_id: UUID, *, now: datetime) -> Account:
    """The account row of a customer; made when missing."""
    account, _ = Account.objects.get_or_create(customer_id=customer_id, defaults={"period": period_of(now)})
    return account


def hold(customer_id: UUID, *, now: datetime) -> Account:
    """The account row, locked until the caller's transaction ends: who weighs money against it next waits for what this one does."""
    open_account(customer_id, now=now)
    return Account.objects.select_for_update().get(customer_id=customer_id)


def reserve(*, customer_id: UUID, plan: PlanRevision, amount_microusd: int, now: datetime) -> Standing:
    """Hold money and one place of concurrency, and count the request. Raises OutOfMoney or LimitExceeded and then holds nothing."""
    statement, values = reservation(customer_id=customer_id, plan=plan, amount_microusd=amount_microusd, now=now)
    found = sql.rows(statement, values)
    if not found:
        account = open_account(customer_id, now=now)
        refusal = _refusal(account, plan, amount_microusd, now)
        if refusal is None:  # the account was new, or room was made meanwhile
            found = sql.rows(statement, values)
            refusal = None if found else _refusal(open_account(customer_id, now=now), plan, amount_microusd, now)
        if not found:
            raise refusal or LimitExceeded("limit_contended", "Other requests took the last place.", "Try again in a second.", headers={"Retry-After": "1"})
    return standing_after(plan, found[0], now=now)


def reservation(*, customer_id: UUID, plan: PlanRevision, amount_microusd: int, now: datetime) -> tuple[str, list[object]]:
    """The statement that reserves, and its parameters: one row (for `standing_after`) when it did, none when a limit stood in the way."""
    values = {
        "customer": customer_id,
        "amount": amount_microusd,
        "jobs": 1,
        "period": period_of(now),
        "minute": int(now.timestamp()) // 60,
        "money_limit": plan.monthly_limit_microusd,
        "active_limit": plan.max_active_jobs,
        "requests_limit": plan.requests_per_minute,
    }
    return _RESERVE, [values[name] for name in _RESERVE_NAMES]


def standing_after(plan: PlanRevision, row: Sequence[int], *, now: datetime) -> Standing:
    """Where the account stands after the reservation that returned `row`."""
    settled, reserved, active, requests = row
    return _standing(plan, settled=settled, reserved=reserved, active=active, requests=requests, now=now)


def release(*, customer_id: UUID, amount_microusd: int, price_microusd: int, jobs: int = 1, now: datetime) -> None:
    """Give back what `jobs` jobs held and book what they cost."""
    period = period_of(now)
    sql.send(_RELEASE, [period, period, price_microusd, price_microusd, period, period, amount_microusd, jobs, customer_id])


def adjust(*, customer_id: UUID, difference_microusd: int, occurred_at: datetime) -> None:
    """Move what counts against the limit of the month in which a corrected job ended; earlier months have no limit left to move."""
    sql.run(
        "UPDATE billing_account SET settled_microusd = settled_microusd + %s WHERE customer_id = %s AND period = %s",
        [difference_microusd, customer_id, period_of(occurred_at)],
    )


@transaction.atomic
def count_request(*, customer_id: UUID, plan: PlanRevision, now: datetime) -> Standing:
    """Count a request that reserves nothing (a refused one, an upload); raises LimitExceeded past the limit."""
    account = hold(customer_id, now=now)
    used = _requests(account, now)
    if used >= plan.requests_per_minute:
        raise _too_many_requests(plan, now)
    minute = int(now.timestamp()) // 60
    account.minute, account.minute_requests = (account.minute if account.minute == minute + 1 else minute), used + 1
    account.save(update_fields=["minute", "minute_requests"])
    return standing(account, plan, now=now)


def standing(account: Account, plan: PlanRevision, *, now: datetime) -> Standing:
    """Where `account` stands, without changing it."""
    return _standing(
        plan,
        settled=account.settled_microusd if account.period >= period_of(now) else 0,
        reserved=account.reserved_microusd,
        active=account.active_jobs,
        requests=_requests(account, now),
        now=now,
    )


def _requests(account: Account, now: datetime) -> int:
    """Requests counted in this minute, or in the next one when `now` is a little old."""
    minute = int(now.timestamp()) // 60
    return account.minute_requests if account.minute in (minute, minute + 1) else 0


def _standing(plan: PlanRevision, *, settled: int, reserved: int, active: int, requests: int, now: datetime) -> Standing:
    return Standing(
        requests_limit=plan.requests_per_minute,
        requests_left=max(0, plan.requests_per_minute - requests),
        reset_s=60 - now.second,
        active_limit=plan.max_active_jobs,
        active_left=max(0, plan.max_active_jobs - active),
        money_limit_microusd=plan.monthly_limit_microusd,
        money_left_microusd=max(0, plan.monthly_limit_microusd - settled - reserved),
    )


def _refusal(account: Account, plan: PlanRevision, amount: int, now: datetime) -> WorkflowError | None:
    at = standing(account, plan, now=now)
    if at.requests_left <= 0:
        return _too_many_requests(plan, now)
    if at.active_left <= 0:
        return LimitExceeded(
            "active_jobs_limit",
            f"{plan.max_active_jobs} jobs are already queued or running, the most this plan allows.",
            "Wait for one to finish, or move to a larger plan.",
            details={"limit": plan.max_active_jobs},
            headers={"Retry-After": "5", **at.headers()},
        )
    if at.money_left_microusd < amount:
        return OutOfMoney(
            "monthly_limit_reached",
            f"This job could cost {money.display(amount)}, and {money.display(at.money_left_microusd)} of this month's limit is left.",
            "Raise the monthly limit, or wait for running jobs to settle.",
            details={
                "limit_usd": money.to_usd(plan.monthly_limit_microusd),
                "left_usd": money.to_usd(at.money_left_microusd),
                "needed_usd": money.to_usd(amount),
            },
        )
    return None


def _too_many_requests(plan: PlanRevision, now: datetime) -> LimitExceeded:
    wait = 60 - now.second
    return LimitExceeded(
        "requests_limit",
        f"More than {plan.requests_per_minute} requests in this minute.",
        f"Try again in {wait} s.",
        details={"limit": plan.requests_per_minute, "window_s": 60},
        headers={"Retry-After": str(wait), "RateLimit-Policy": f'"requests";q={plan.requests_per_minute};w=60', "RateLimit": f'"requests";r=0;t={wait}'},
    )


def next_period(now: datetime) -> datetime:
    """When the monthly limit starts afresh."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
