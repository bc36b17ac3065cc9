"""Completion: once, by whoever holds the attempt, booked exactly; everything later changes nothing."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from factories import make_customer, make_pool, make_runnable, make_worker, submit
from racing import race

from billing.models import Account, UsageEntry
from controlplane.kernel.errors import Conflict, Invalid, WorkflowError
from controlplane.kernel.models import OutboxEntry
from fleet import membership, outputs, queue, reconcile
from fleet.models import Attempt, Job, Output, Worker
from fleet.queue import Completion
from fleet.queue.transitions import ALLOWED, IllegalTransition, check

S = timedelta(seconds=1)
ERROR = {"code": "boom", "message": "It broke.", "suggestion": "Try again.", "details": {}}


class World:
    def __init__(self, now: datetime, **job: Any) -> None:
        self.now = now
        self.pool = make_pool(now=now)
        self.customer = make_customer(now=now)
        self.workflow = make_runnable(now=now, pool=self.pool)
        self.worker = make_worker(self.pool, now=now)
        self.job = submit(self.customer, self.workflow, now=now, **job)
        self.attempt = self.claim(self.worker, now)

    def claim(self, worker: Worker, at: datetime) -> int:
        (leased,) = queue.claim(Worker.objects.get(id=worker.id), now=at)
        return leased.attempt

    def complete(
        self, *, attempt: int | None = None, worker: Worker | None = None, outcome: str = "succeeded", at: datetime | None = None, **fields: Any
    ) -> bool:
        fields.setdefault("timings", {"busy_s": 2.0})
        completion = Completion(outcome=outcome, **fields)
        return queue.complete(worker or self.worker, job_id=self.job.id, attempt=attempt or self.attempt, completion=completion, now=at or self.now + 10 * S)

    def fresh(self) -> Job:
        return Job.objects.get(id=self.job.id)


@pytest.fixture
def world(db: None, now: datetime) -> World:
    return World(now)


def stale(call: Any) -> None:
    with pytest.raises(Conflict) as refused:
        call()
    assert refused.value.code == "attempt_stale"


def test_success_is_booked_in_every_place_at_once(world: World, now: datetime) -> None:
    assert world.complete()
    job = world.fresh()
    assert (job.status, job.price_microusd, job.cost_microusd, job.progress, job.lease_until) == ("succeeded", 12_000, 2_000, 1.0, None)
    assert job.finished_at == now + 10 * S
    account = Account.objects.get(customer=world.customer)
    assert (account.settled_microusd, account.reserved_microusd, account.active_jobs) == (12_000, 0, 0)
    lines = UsageEntry.objects.filter(job_id=job.id)
    assert {line.meter: line.amount_microusd for line in lines} == {"job": 10_000, "gpu_second": 2_000}
    world.worker.refresh_from_db()
    assert (world.worker.state, world.worker.jobs_done, world.worker.busy_s, world.worker.idle_since) == ("idle", 1, 2.0, now + 10 * S)
    assert reconcile.drift(now=now).total == 0


def test_the_same_completion_again_is_a_duplicate_and_books_nothing(world: World) -> None:
    world.complete()
    before = world.fresh().revision
    assert world.complete(at=world.now + 60 * S) is False
    assert (world.fresh().revision, UsageEntry.objects.count()) == (before, 2)
    stale(lambda: world.complete(outcome="failed", failure_class="platform"))


@pytest.mark.django_db(transaction=True)
def test_completing_at_once_is_accepted_once(now: datetime) -> None:
    world = World(now)
    results = race(10, lambda _: world.complete())
    assert results.count(True) == 1 and results.count(False) == 9, results
    assert UsageEntry.objects.count() == 2
    assert reconcile.drift(now=now).total == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(3))
def test_completion_cancel_expiry_and_departure_at_once_end_a_job_once(now: datetime, round_: int) -> None:
    world = World(now)
    late = now + 60 * S
    calls = [
        lambda: world.complete(at=late),
        lambda: world.complete(outcome="failed", failure_class="customer_input", error=ERROR, at=late),
        lambda: queue.cancel(job_id=world.job.id, now=late),
        lambda: queue.expire_leases(now=late),
        lambda: membership.stopped(world.worker, reason="crash", now=late),
        lambda: queue.heartbeat(world.worker, state="busy", reports=[queue.Report(world.job.id, 1, 0.5)], now=late),
    ]
    results = race(len(calls), lambda n: calls[n]())
    assert all(not isinstance(r, Exception) or isinstance(r, Conflict) for r in results), results
    assert Attempt.objects.get(job=world.job).state != "running" or world.fresh().status == "running"
    assert reconcile.drift(now=late).total == 0


def test_a_worker_that_claimed_the_job_again_cannot_end_it_by_its_old_attempt(world: World, now: datetime) -> None:
    """Same job, same worker: only the number of the attempt tells the two leases apart."""
    later = now + 60 * S
    queue.expire_leases(now=later)
    assert world.claim(world.worker, later) == 2
    for outcome in ("succeeded", "failed", "canceled"):
        stale(lambda o=outcome: world.complete(attempt=1, outcome=o, failure_class="" if o == "succeeded" else "platform", at=later))
    job = world.fresh()
    assert (job.status, job.attempt, job.worker_id) == ("running", 2, world.worker.id)
    assert Attempt.objects.get(job=job, number=2).state == "running"
    assert not UsageEntry.objects.exists()
    assert world.complete(attempt=2, at=later)


@pytest.mark.parametrize("attempt", [0, 2, 32_767, 2**31, 2**63, 10**30])
def test_an_attempt_nobody_made_is_stale(world: World, attempt: int) -> None:
    with pytest.raises(Conflict) as refused:
        queue.complete(world.worker, job_id=world.job.id, attempt=attempt, completion=Completion(outcome="succeeded"), now=world.now)
    assert refused.value.code == "attempt_stale"


def test_another_worker_cannot_end_it(world: World, now: datetime) -> None:
    stale(lambda: world.complete(worker=make_worker(world.pool, now=now)))
    assert world.fresh().status == "running"


def test_a_job_nobody_knows_is_stale(world: World) -> None:
    with pytest.raises(Conflict):
        queue.complete(world.worker, job_id=UUID(int=7), attempt=1, completion=Completion(outcome="succeeded"), now=world.now)


def test_a_lost_attempt_that_reports_after_all_changes_nothing(world: World, now: datetime) -> None:
    later = now + 60 * S
    queue.expire_leases(now=later)
    before = world.fresh()
    stale(lambda: world.complete(at=later))
    after = world.fresh()
    assert (after.status, after.revision, after.cost_microusd) == ("queued", before.revision, before.cost_microusd)


@pytest.mark.parametrize("busy_s", [1e9, 10_000.0])
def test_nobody_pays_for_more_seconds_than_went_by_nor_past_the_quote(world: World, busy_s: float) -> None:
    quote = world.fresh().quote_microusd
    world.complete(timings={"busy_s": busy_s}, at=world.now + 300 * S)
    job = world.fresh()
    assert job.billable_s == 300.0 and job.price_microusd == quote
    assert sum(UsageEntry.objects.values_list("amount_microusd", flat=True)) == quote
    assert UsageEntry.objects.get(meter="gpu_second").quantity == 300


@pytest.mark.parametrize(("models_s", "billed"), [(3.0, 2.0), (99.0, 0.0)])
def test_fetching_models_costs_the_worker_and_is_not_billed(world: World, models_s: float, billed: float) -> None:
    world.complete(timings={"busy_s": 5.0, "models_s": models_s})
    job = world.fresh()
    assert (job.billable_s, world.worker.__class__.objects.get(id=world.worker.id).busy_s) == (billed, 5.0)
    assert job.cost_microusd == 5_000, "a tenth of a cent a second, fetching included"


def test_seconds_below_zero_count_as_none_and_unreported_ones_by_the_clock(world: World, now: datetime) -> None:
    world.complete(timings={"busy_s": -5.0})
    assert world.fresh().billable_s == 0
    other = World(now)
    other.complete(timings={})
    assert other.fresh().billable_s == 10.0


@pytest.mark.parametrize(
    ("failure_class", "status"),
    [
        ("platform", "queued"),
        ("capacity", "queued"),
        ("customer_input", "failed"),
        ("workflow", "failed"),
        ("quality", "failed"),
        ("external", "failed"),
        ("customer_cancel", "failed"),
    ],
)
def test_what_is_ours_is_tried_again_and_the_rest_ends(world: World, failure_class: str, status: str) -> None:
    world.complete(outcome="failed", failure_class=failure_class, error=ERROR)
    job = world.fresh()
    assert job.status == status
    if status == "failed":
        assert (job.failure_class, job.error) == (failure_class, ERROR)
    else:
        assert (job.worker_id, job.lease_until, job.price_microusd) == (None, None, None)
        assert not UsageEntry.objects.exists()
    assert job.cost_microusd == 2_000
    assert Attempt.objects.get(job=job).error == ERROR


def test_attempts_are_bounded_and_the_last_failure_is_free_but_metered(world: World, now: datetime) -> None:
    at = now
    for number in (1, 2, 3):
        if number > 1:
            assert world.claim(make_worker(world.pool, now=now), at) == number
        at += 60 * S
        queue.expire_leases(now=at)
    job = world.fresh()
    assert (job.status, job.attempt, job.failure_class, job.price_microusd) == ("failed", 3, "platform", 0)
    assert job.cost_microusd == 180_000, "three minutes of a worker were lost on it"
    assert [a.state for a in Attempt.objects.filter(job=job)] == ["lost"] * 3
    assert queue.claim(make_worker(world.pool, now=now), now=at) == []
    assert {e.amount_microusd for e in UsageEntry.objects.filter(job_id=job.id)} == {0}


def test_a_worker_that_gives_up_unasked_has_failed_and_may_say_so_twice(world: World) -> None:
    assert world.complete(outcome="canceled", failure_class="customer_cancel")
    assert world.fresh().status == "queued"
    assert Attempt.objects.get(job=world.job).failure_class == "platform"
    assert world.complete(outcome="canceled", failure_class="customer_cancel") is False, "the same word again is a duplicate"


def test_a_cancel_that_was_asked_for_ends_the_job_and_charges_its_seconds(world: World) -> None:
    queue.cancel(job_id=world.job.id, now=world.now + S)
    world.complete(outcome="canceled")
    job = world.fresh()
    assert (job.status, job.failure_class, job.price_microusd, job.error["code"]) == ("canceled", "customer_cancel", 2_000, "canceled")


def test_a_job_that_finished_before_it_heard_of_the_cancel_has_succeeded(world: World) -> None:
    queue.cancel(job_id=world.job.id, now=world.now + S)
    world.complete()
    assert world.fresh().status == "succeeded"


def test_a_failure_past_the_deadline_expires_for_nothing(now: datetime, db: None) -> None:
    world = World(now, deadline_s=5)
    world.complete(outcome="failed", failure_class="platform", error=ERROR)
    job = world.fresh()
    assert (job.status, job.failure_class, job.price_microusd, job.error["code"]) == ("expired", "capacity", 0, "deadline_passed")


def put(world: World, index: int, data: bytes = b"bytes", **fields: Any) -> Output:
    given = {"name": "a.txt", "kind": "text", "node": "2", "media_type": "text/plain", "sha256": ""} | fields
    return outputs.store(world.worker, job_id=world.job.id, attempt=world.attempt, index=index, stream=io.BytesIO(data), now=world.now, **given)


def test_only_listed_outputs_are_published_with_what_was_measured(world: World) -> None:
    kept, left = put(world, 0, b"one"), put(world, 1, b"two")
    world.complete(outputs=[{"index": 0, "sha256": kept.blob_id, "measurements": {"width": 8, "height": 2**40, "duration_s": True}}])
    kept.refresh_from_db()
    left.refresh_from_db()
    assert (kept.published, kept.width, kept.height, kept.duration_s, left.published) == (True, 8, None, None, False)


@pytest.mark.parametrize(
    "listed",
    [
        [{"index": 1, "sha256": "0" * 64}],
        [{"index": 0, "sha256": "0" * 64}],
        [{"index": -1, "sha256": "x"}],
        [{"index": 10**30, "sha256": "x"}],
    ],
)
def test_an_output_that_was_not_stored_keeps_the_job_open(world: World, listed: list[dict[str, Any]]) -> None:
    put(world, 0)
    with pytest.raises(Invalid) as refused:
        world.complete(outputs=listed)
    assert refused.value.code == "output_missing"
    assert world.fresh().status == "running"
    assert Attempt.objects.get(job=world.job).state == "running"
    assert world.complete(outcome="failed", failure_class="platform", error=ERROR)
    assert not Output.objects.filter(published=True).exists()


def test_an_output_listed_twice_is_shown_once(world: World) -> None:
    kept = put(world, 0)
    world.complete(outputs=[{"index": 0, "sha256": kept.blob_id}] * 2)
    assert Output.objects.filter(published=True).count() == 1


def test_the_end_is_told_once_to_the_address_the_job_named(now: datetime, db: None) -> None:
    world = World(now, webhook_url="https://example.com/hook")
    world.complete()
    world.complete()
    entry = OutboxEntry.objects.get()
    assert (entry.topic, entry.payload["type"], entry.payload["url"]) == ("webhook", "job.succeeded", "https://example.com/hook")


def test_every_transition_off_the_table_raises() -> None:
    states = set(ALLOWED)
    for before in states:
        for after in states:
            if after in ALLOWED[before]:
                check(before, after)
            else:
                with pytest.raises(IllegalTransition):
                    check(before, after)
    assert all(ALLOWED[state] == frozenset() for state in Job.TERMINAL)


@pytest.mark.django_db(transaction=True)
def test_many_jobs_of_one_customer_end_at_once_and_the_account_adds_up(now: datetime) -> None:
    pool, customer = make_pool(now=now), make_customer(now=now)
    workflow = make_runnable(now=now, pool=pool)
    for n in range(16):
        submit(customer, workflow, now=now, deadline_s=1 if n % 4 == 0 else None)
    worker = make_worker(pool, now=now)
    leased = queue.claim(worker, limit=8, now=now)
    late = now + 90 * S

    def end(n: int) -> Any:
        if n == 8:
            return queue.expire_deadlines(now=late)
        if n == 9:
            return queue.expire_leases(now=late)
        if n == 10:
            return membership.stopped(worker, reason="crash", now=late)
        return queue.complete(worker, job_id=leased[n].job_id, attempt=1, completion=Completion(outcome="succeeded", timings={"busy_s": 1.0}), now=late)

    results = race(11, end)
    assert [r for r in results if isinstance(r, Exception) and not isinstance(r, WorkflowError)] == []
    assert reconcile.drift(now=late).total == 0
