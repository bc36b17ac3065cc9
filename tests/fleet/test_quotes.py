"""What a batch would cost and when it would be done; announcing it."""

from datetime import timedelta

import pytest

from billing import pricing
from controlplane.kernel.errors import Conflict, Invalid, LimitExceeded, NotFound, OutOfMoney, Unavailable
from controlplane.kernel.models import AuditEntry
from fleet import announcing, estimates, job_times, quotes, rollups, tasks
from fleet.models import Job, PlannedDemand, Pool, Quote, Worker
from tests import factories
from tests.fleet import planning_rows as rows
from tests.racing import race

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh():
    estimates.forget()
    job_times.forget()


def ask(customer, workflow, *, jobs=10, now, **more):
    return quotes.make(customer=customer, workflow=workflow, version=workflow.channels.get().version, jobs=jobs, now=now, **more).quote


def world(now, **terms):
    pool, workflow, customer = rows.pool_with_past(now=now, jobs=30, every_s=600, took_s=30, provider="local", **terms)
    Job.objects.update(customer=factories.make_customer(now=now))  # the past was another's
    return pool, workflow, customer


def measured(now):
    rollups.recompute(now=now, since=now - timedelta(hours=20))
    estimates.forget()


def test_a_batch_on_two_workers_takes_as_long_as_its_work_on_them(now):
    pool, workflow, customer = world(now, base=2, max=2)
    factories.make_worker(pool, now=now)
    quote = ask(customer, workflow, jobs=40, now=now)
    took = (quote.finish_p50_at - now).total_seconds()
    assert 40 * 30 / 2 <= took <= 40 * 30 / 2 * 1.35, "six others come an hour and go in between"
    assert quote.finish_p90_at >= quote.finish_p50_at
    assert quote.basis["at_once_now"] == 2 and quote.basis["seconds_per_job"] == 30
    assert quote.expires_at == now + quotes.KEPT


def test_workers_that_must_start_first_are_waited_for(now):
    pool, workflow, customer = world(now, base=0, max=4)
    Worker.objects.filter(pool=pool).update(state="stopped", stopped_at=now)
    quote = ask(customer, workflow, jobs=4, now=now)
    took = (quote.finish_p50_at - now).total_seconds()
    assert took >= 45 + 30, "a start of 45 s, then the job"


def test_what_waits_already_goes_before_but_a_longer_queue_of_another_takes_turns(now):
    pool, workflow, customer = world(now, base=1, max=1)
    other = factories.make_customer(now=now)
    for _ in range(6):
        rows.waits(other, workflow, at=now)
    alone = ask(customer, workflow, jobs=3, now=now)
    assert alone.basis["jobs_ahead"] == 3, "one of the other's for each of mine"
    first = (alone.finish_p50_at - now).total_seconds()
    assert 6 * 30 <= first <= 6 * 30 * 1.6


def test_the_price_is_the_plans_for_what_such_jobs_took_and_never_more_than_is_reserved(now):
    _, workflow, customer = world(now)
    measured(now)
    quote = ask(customer, workflow, jobs=7, now=now)
    assert quote.price_microusd == 7 * (10_000 + 30 * 1_000)
    version = workflow.channels.get().version
    each = pricing.quote(pricing.Terms(10_000, 1_000), expected_s=estimates.of_version(version.id, now=now).p95_s)
    assert quote.most_microusd == 7 * each
    assert quote.price_microusd <= quote.most_microusd


def test_an_unmeasured_version_says_that_it_is_rough(now):
    pool = factories.make_pool(now=now, base=1, max=2)
    workflow = factories.make_runnable(now=now, pool=pool)
    factories.make_worker(pool, now=now)
    quote = ask(factories.make_customer(now=now), workflow, jobs=5, now=now)
    assert quote.basis["seconds_per_job"] is None and quote.basis["measured_runs"] == 0
    assert "not been measured" in quote.basis["notes"][0]
    assert quote.finish_p90_at > quote.finish_p50_at


def test_limits_of_the_plan_are_named_and_slow_the_batch_down(now):
    pool, workflow, _ = world(now, base=4, max=4)
    for _ in range(3):
        factories.make_worker(pool, now=now)
    plan = factories.make_plan(now=now, max_active_jobs=2, monthly_limit_microusd=500_000)
    quote = ask(factories.make_customer(now=now, plan=plan), workflow, jobs=40, now=now)
    assert [one["limit"] for one in quote.basis["limits"]] == ["active_jobs", "month"]
    assert (quote.finish_p50_at - now).total_seconds() >= 40 * 30 / 2


def test_a_batch_larger_than_the_fleet_gets_a_far_finish_and_one_for_years_is_refused(now):
    pool, workflow, customer = world(now, base=1, max=2)
    factories.make_worker(pool, now=now)
    far = ask(customer, workflow, jobs=20_000, now=now)
    days = (far.finish_p50_at - now).total_seconds() / 86400
    assert 3.4 < days < 4.2, "20,000 half minutes on two workers"
    Job.objects.filter(workflow=workflow).update(finished_at=now)
    for job in Job.objects.filter(workflow=workflow):
        Job.objects.filter(id=job.id).update(started_at=now - timedelta(hours=1))
    with pytest.raises(Invalid, match="batch_too_large") as refused:
        ask(customer, workflow, jobs=100_000, now=now)
    assert refused.value.details["most_at_once"] == 2


@pytest.mark.parametrize("jobs", [0, -1, 100_001, True, 1.5])
def test_a_number_of_jobs_that_is_none_is_refused(now, jobs):
    _, workflow, customer = world(now)
    with pytest.raises(Invalid, match="jobs_invalid"):
        ask(customer, workflow, jobs=jobs, now=now)


def test_a_start_in_the_past_or_far_ahead_is_refused_and_a_moment_ago_is_now(now):
    _, workflow, customer = world(now)
    for wrong in (now - timedelta(hours=1), now + timedelta(days=31)):
        with pytest.raises(Invalid, match="starts_at"):
            ask(customer, workflow, now=now, starts_at=wrong)
    assert ask(customer, workflow, now=now, starts_at=now - timedelta(seconds=30)).starts_at == now


def test_a_later_start_moves_the_finish_and_keeps_the_quote_longer(now):
    pool, workflow, customer = world(now)
    start = now + timedelta(days=2)
    quote = ask(customer, workflow, now=now, starts_at=start)
    assert start < quote.finish_p50_at < start + timedelta(minutes=30)
    assert quote.expires_at == now + quotes.KEPT_MOST
    assert any("far off" in note for note in quote.basis["notes"])


def test_a_pool_that_cannot_have_workers_says_so(now):
    pool, workflow, customer = world(now)
    Worker.objects.filter(pool=pool).update(state="stopped", stopped_at=now)
    Pool.objects.filter(id=pool.id).update(base=0, max=0)
    with pytest.raises(Unavailable, match="no_workers"):
        ask(customer, workflow, now=now)


def test_a_pool_that_orders_nobody_counts_on_those_it_has(now):
    pool, workflow, customer = world(now, base=1, max=8)
    Pool.objects.filter(id=pool.id).update(halted_at=now, halted_reason="A crash loop.")
    quote = ask(customer, workflow, jobs=20, now=now)
    assert quote.basis["at_once_most"] == 1
    assert (quote.finish_p50_at - now).total_seconds() >= 600


def test_announcing_tells_the_fleet_once_and_withdrawing_takes_it_back(now):
    pool, workflow, customer = world(now)
    quote = ask(customer, workflow, jobs=12, now=now, starts_at=now + timedelta(hours=1))
    for _ in range(2):
        quotes.announce(quote, customer=customer, now=now)
    (planned,) = PlannedDemand.objects.all()
    assert (planned.pool, planned.jobs, planned.work_s, planned.customer) == (pool, 12, 360.0, customer)
    assert planned.starts_at == quote.starts_at
    for _ in range(2):
        quotes.withdraw(quote, customer=customer, now=now)
    planned.refresh_from_db()
    assert planned.canceled_at == now
    assert not announcing.open_ones(now=now).exists()
    assert list(AuditEntry.objects.filter(object_type="planned_demand").values_list("action", flat=True).order_by("seq")) == [
        "demand.announce",
        "demand.cancel",
    ]
    quotes.announce(quote, customer=customer, now=now)
    assert PlannedDemand.objects.filter(canceled_at__isnull=True).count() == 1, "it can be announced again"


def test_an_announced_batch_is_done_sooner_when_workers_must_start(now):
    pool, workflow, customer = world(now, base=0, max=6, policy="wait-target")
    Worker.objects.filter(pool=pool).update(state="stopped", stopped_at=now)
    plain, told = (ask(customer, workflow, jobs=60, now=now, starts_at=now + timedelta(minutes=30), announce=yes) for yes in (False, True))
    assert told.planned is not None and plain.planned is None
    assert told.finish_p50_at <= plain.finish_p50_at + timedelta(seconds=15)


def test_nobody_announces_what_they_could_not_pay_for(now):
    _, workflow, _ = world(now)
    measured(now)
    customer = factories.make_customer(now=now, plan=factories.make_plan(now=now, monthly_limit_microusd=900_000))
    small = ask(customer, workflow, jobs=20, now=now)
    quotes.announce(small, customer=customer, now=now)
    with pytest.raises(OutOfMoney, match="announced batches would cost"):
        quotes.announce(ask(customer, workflow, jobs=5, now=now), customer=customer, now=now)
    assert PlannedDemand.objects.count() == 1


def test_an_expired_quote_cannot_be_announced(now):
    _, workflow, customer = world(now)
    quote = ask(customer, workflow, now=now)
    with pytest.raises(Conflict, match="quote_expired"):
        quotes.announce(quote, customer=customer, now=quote.expires_at + timedelta(seconds=1))


def test_the_same_key_and_body_give_the_first_quote_and_another_body_is_refused(now):
    _, workflow, customer = world(now)
    first = ask(customer, workflow, now=now, idempotency_key="a", body_sha256="x")
    again = quotes.make(customer=customer, workflow=workflow, version=workflow.channels.get().version, jobs=10, idempotency_key="a", body_sha256="x", now=now)
    assert again.replayed and again.quote == first and Quote.objects.count() == 1
    with pytest.raises(Invalid, match="idempotency_key_reused"):
        ask(customer, workflow, now=now, idempotency_key="a", body_sha256="y")
    other = factories.make_customer(now=now)
    assert ask(other, workflow, now=now, idempotency_key="a", body_sha256="y").id != first.id


def test_quotes_of_a_minute_are_limited(now, monkeypatch):
    _, workflow, customer = world(now)
    monkeypatch.setattr(quotes, "A_MINUTE", 2)
    for _ in range(2):
        ask(customer, workflow, now=now)
    with pytest.raises(LimitExceeded, match="quotes_limit"):
        ask(customer, workflow, now=now)
    assert ask(customer, workflow, now=now + timedelta(minutes=2))


def test_another_customers_quote_is_not_there(now):
    _, workflow, customer = world(now)
    quote = ask(customer, workflow, now=now)
    with pytest.raises(NotFound):
        quotes.one(factories.make_customer(now=now), quote.id)


def test_old_quotes_are_forgotten_unless_announced(now):
    _, workflow, customer = world(now)
    kept = ask(customer, workflow, now=now, announce=True)
    ask(customer, workflow, now=now)
    assert tasks.sweep(now=now + timedelta(days=60))["quotes"] == 1
    assert Quote.objects.get() == kept


def test_a_customer_is_not_told_how_large_the_pool_is(now):
    pool, workflow, _ = world(now, base=4, max=40)
    for _ in range(3):
        factories.make_worker(pool, now=now)
    plan = factories.make_plan(now=now, max_active_jobs=2)
    small = ask(factories.make_customer(now=now, plan=plan), workflow, jobs=30, now=now)
    assert (small.basis["at_once_now"], small.basis["at_once_most"]) == (4, 40), "operators are told"
    said = quotes.as_json(small, now=now)["basis"]
    assert not [name for name in said if "at_once" in name]
    Job.objects.filter(workflow=workflow).update(finished_at=now, started_at=now - timedelta(hours=1))
    with pytest.raises(Invalid, match="batch_too_large") as refused:
        ask(factories.make_customer(now=now, plan=plan), workflow, jobs=100_000, now=now)
    assert refused.value.details["most_at_once"] == 2


@pytest.mark.django_db(transaction=True)
def test_two_announcements_at_once_never_pass_what_is_left_of_the_limit(now):
    _, workflow, _ = world(now)
    measured(now)
    plan = factories.make_plan(
        now=now, price_per_job_microusd=1_000_000, price_per_gpu_second_microusd=0, monthly_limit_microusd=10_000_000, max_active_jobs=100
    )
    customer = factories.make_customer(now=now, plan=plan)
    made = [ask(customer, workflow, jobs=4, now=now) for _ in range(5)]
    results = race(5, lambda n: quotes.announce(made[n], customer=customer, now=now))
    assert sorted(type(one).__name__ for one in results) == ["OutOfMoney"] * 3 + ["Quote"] * 2
    assert sum(quotes.planned_of(customer, now=now).values_list("jobs", flat=True)) == 8
