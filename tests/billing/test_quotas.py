"""Hard limits: exact under a race, never moved back by a request that waited, told in the right words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from factories import make_customer, make_plan
from racing import race

from billing import quotas
from billing.models import Account
from controlplane.kernel.errors import LimitExceeded, OutOfMoney


def held(results: list[object]) -> int:
    return sum(isinstance(result, quotas.Standing) for result in results)


@pytest.mark.django_db(transaction=True)
def test_forty_requests_for_ten_places_get_ten(now: datetime) -> None:
    plan = make_plan(now=now, max_active_jobs=10)
    customer = make_customer(now=now, plan=plan)
    results = race(40, lambda _: quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=5, now=now))
    assert held(results) == 10
    assert {getattr(r, "code", "") for r in results if not isinstance(r, quotas.Standing)} == {"active_jobs_limit"}
    account = Account.objects.get(customer=customer)
    assert (account.active_jobs, account.reserved_microusd, account.minute_requests) == (10, 50, 10)


@pytest.mark.django_db(transaction=True)
def test_money_never_passes_the_limit(now: datetime) -> None:
    plan = make_plan(now=now, monthly_limit_microusd=1_000)
    customer = make_customer(now=now, plan=plan)
    amounts = [70 + 13 * (n % 7) for n in range(40)]
    results = race(40, lambda n: quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=amounts[n], now=now))
    account = Account.objects.get(customer=customer)
    taken = [amount for amount, result in zip(amounts, results, strict=True) if isinstance(result, quotas.Standing)]
    assert account.reserved_microusd == sum(taken) <= 1_000
    refused = [amount for amount, result in zip(amounts, results, strict=True) if not isinstance(result, quotas.Standing)]
    assert min(refused) > 1_000 - sum(taken), "somebody was refused who had room"
    assert all(isinstance(r, OutOfMoney) for r in results if not isinstance(r, quotas.Standing))


@pytest.mark.django_db(transaction=True)
def test_requests_per_minute_are_exact_however_they_come(now: datetime) -> None:
    plan = make_plan(now=now, requests_per_minute=15)
    customer = make_customer(now=now, plan=plan)

    def call(n: int) -> quotas.Standing:
        if n % 2:
            return quotas.count_request(customer_id=customer.id, plan=plan, now=now)
        return quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=1, now=now)

    assert held(race(40, call)) == 15


@pytest.mark.django_db(transaction=True)
def test_racing_through_the_turn_of_a_minute_gives_at_most_one_minute_more(now: datetime) -> None:
    """Half the requests read their clock before the minute ended, and wait for the row among those who read it after."""
    plan = make_plan(now=now, requests_per_minute=10)
    customer = make_customer(now=now, plan=plan)
    before = now - timedelta(milliseconds=1)
    results = race(40, lambda n: quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=1, now=(before, now)[n % 2]))
    assert 10 <= held(results) <= 20
    assert Account.objects.get(customer=customer).minute_requests <= 10


@pytest.mark.django_db
def test_a_request_of_the_last_minute_that_comes_late_does_not_wipe_the_count(now: datetime) -> None:
    plan = make_plan(now=now, requests_per_minute=2)
    customer = make_customer(now=now, plan=plan)
    late = now - timedelta(seconds=1)
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=now)
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=late)
    for moment in (now, late, now):
        with pytest.raises(LimitExceeded):
            quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=moment)
        with pytest.raises(LimitExceeded):
            quotas.count_request(customer_id=customer.id, plan=plan, now=moment)
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=now + timedelta(minutes=1))


@pytest.mark.django_db
def test_a_clock_that_ran_far_ahead_locks_nobody_out(now: datetime) -> None:
    plan = make_plan(now=now, requests_per_minute=1)
    customer = make_customer(now=now, plan=plan)
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=now + timedelta(hours=5))
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=now)


@pytest.mark.django_db
def test_no_requests_a_minute_means_none(now: datetime) -> None:
    plan = make_plan(now=now, requests_per_minute=0)
    customer = make_customer(now=now, plan=plan)
    with pytest.raises(LimitExceeded) as refused:
        quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=now)
    assert refused.value.code == "requests_limit"


MARCH = datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.django_db
def test_a_new_month_starts_at_zero_and_keeps_what_is_reserved() -> None:
    plan = make_plan(now=MARCH, monthly_limit_microusd=100)
    customer = make_customer(now=MARCH, plan=plan)
    for _ in range(2):
        quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=50, now=MARCH)
    quotas.release(customer_id=customer.id, amount_microusd=50, price_microusd=50, now=MARCH)
    with pytest.raises(OutOfMoney):
        quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=1, now=MARCH)
    at = quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=50, now=APRIL)
    assert at.money_left_microusd == 0
    account = Account.objects.get(customer=customer)
    assert (account.period, account.settled_microusd, account.reserved_microusd) == ("2026-04", 0, 100)


@pytest.mark.django_db
def test_a_job_that_ended_in_march_and_is_booked_late_leaves_april_alone() -> None:
    plan = make_plan(now=MARCH, monthly_limit_microusd=100)
    customer = make_customer(now=MARCH, plan=plan)
    for _ in range(3):
        quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=30, now=MARCH)
    quotas.release(customer_id=customer.id, amount_microusd=30, price_microusd=20, now=APRIL)
    quotas.release(customer_id=customer.id, amount_microusd=30, price_microusd=25, now=MARCH)
    account = Account.objects.get(customer=customer)
    assert (account.period, account.settled_microusd, account.reserved_microusd, account.active_jobs) == ("2026-04", 20, 30, 1)
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=50, now=MARCH)
    account.refresh_from_db()
    assert (account.period, account.settled_microusd) == ("2026-04", 20), "a late request wiped what April had spent"
    assert quotas.standing(account, plan, now=MARCH).money_left_microusd == 0


@pytest.mark.django_db
def test_every_refusal_names_its_limit_and_says_when_to_come_back(now: datetime) -> None:
    at = now + timedelta(seconds=41.5)
    plan = make_plan(now=now, max_active_jobs=1, requests_per_minute=3, monthly_limit_microusd=10)
    customer = make_customer(now=now, plan=plan)

    def refusal(amount: int) -> LimitExceeded | OutOfMoney:
        with pytest.raises((LimitExceeded, OutOfMoney)) as caught:
            quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=amount, now=at)
        return caught.value

    money = refusal(11)
    assert (money.code, money.status, money.details["needed_usd"]) == ("monthly_limit_reached", 402, "0.000011")
    quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=1, now=at)
    places = refusal(1)
    assert (places.code, places.status, places.headers["Retry-After"]) == ("active_jobs_limit", 429, "5")
    quotas.release(customer_id=customer.id, amount_microusd=1, price_microusd=1, now=at)
    for _ in range(2):
        quotas.reserve(customer_id=customer.id, plan=plan, amount_microusd=0, now=at)
        quotas.release(customer_id=customer.id, amount_microusd=0, price_microusd=0, now=at)
    requests = refusal(1)
    assert (requests.code, requests.headers["Retry-After"], requests.headers["RateLimit"]) == ("requests_limit", "19", '"requests";r=0;t=19')
    account = Account.objects.get(customer=customer)
    assert (account.reserved_microusd, account.active_jobs, account.settled_microusd) == (0, 0, 1), "a refusal held something"


@pytest.mark.django_db
def test_a_reservation_opens_the_account_it_needs(now: datetime) -> None:
    customer = make_customer(now=now)
    Account.objects.filter(customer=customer).delete()
    assert quotas.reserve(customer_id=customer.id, plan=customer.plan_revision, amount_microusd=1, now=now).active_left == 9_999


def test_the_next_month_is_found_from_any_day() -> None:
    assert quotas.next_period(datetime(2026, 1, 31, 23, tzinfo=UTC)) == datetime(2026, 2, 1, tzinfo=UTC)
    assert quotas.next_period(datetime(2026, 12, 1, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
