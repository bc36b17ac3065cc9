"""Emergency measures: what may be asked, that each is taken once, ends by itself and is undone; and that admission and claims obey."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from controlplane.kernel.errors import Conflict, Invalid, Unavailable, WorkflowError
from controlplane.kernel.models import AuditEntry
from fleet import admission, emergencies, emergency_rows, floors, held_up, measures, observing, presenting, queue, result_cache
from fleet.models import EmergencyAction, Job
from tests import factories
from tests.fleet.emergency_world import World, forget
from tests.racing import race

HOUR = timedelta(hours=1)


@pytest.fixture
def world(db: Any, now: datetime) -> World:
    return World(now)


def submit(world: World, **fields: Any) -> Job:
    forget()
    customer = fields.pop("customer", world.batch)
    return factories.submit(customer, world.workflow, now=fields.pop("now", world.now), **fields)


# -- raising ------------------------------------------------------------------------------------


def test_raised_capacity_holds_until_it_expires_and_then_is_the_pools_own_again(world: World) -> None:
    emergencies.raise_capacity(world.pool, base=4, maximum=6, expires_at=world.now + HOUR, actor="sarah", reason="02:15", now=world.now)
    assert (floors.of(world.pool, now=world.now).base, floors.of(world.pool, now=world.now).maximum) == (4, 6)
    assert floors.of(world.pool, now=world.now + HOUR).maximum == 4
    entry = AuditEntry.objects.latest("seq")
    assert (entry.action, entry.actor, entry.reason, entry.after["max"]) == ("emergency.raise", "sarah", "02:15", 6)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"base": 5, "maximum": 4}, "raise_invalid"),
        ({"base": -1}, "raise_invalid"),
        ({"maximum": 1001}, "raise_invalid"),
        ({"maximum": 6.5}, "raise_invalid"),
        ({"maximum": True}, "raise_invalid"),
        ({"maximum": 4}, "raise_changes_nothing"),
        ({"base": 1, "maximum": 2}, "raise_changes_nothing"),
        ({}, "raise_changes_nothing"),
    ],
)
def test_a_raise_that_is_none_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        emergencies.raise_capacity(world.pool, **fields, expires_at=world.now + HOUR, actor="sarah", now=world.now)
    assert refusal.value.code == code
    assert not EmergencyAction.objects.exists()


@pytest.mark.parametrize("after", [timedelta(0), -HOUR, timedelta(seconds=10), timedelta(days=7, seconds=1)])
def test_a_measure_ends_within_a_week_and_in_the_future(world: World, after: timedelta) -> None:
    for take in (
        lambda ends: emergencies.raise_capacity(world.pool, maximum=8, expires_at=ends, actor="s", now=world.now),
        lambda ends: emergencies.pause_class(world.pool, priority="low", expires_at=ends, actor="s", now=world.now),
        lambda ends: emergencies.shed(world.pool, priority="low", overflow_s=60, expires_at=ends, actor="s", now=world.now),
        lambda ends: emergencies.fast_mode(world.workflow, version=1, overflow_s=60, expires_at=ends, actor="s", now=world.now),
    ):
        with pytest.raises(Invalid) as refusal:
            take(world.now + after)
        assert refusal.value.code == "expiry_invalid"


def test_an_end_is_said_once_as_a_length_or_as_a_moment(now: datetime) -> None:
    assert emergency_rows.expiry(for_s=3600, now=now) == emergency_rows.expiry(until=now + HOUR, now=now) == now + HOUR
    for wrong in ({}, {"for_s": 60, "until": now + HOUR}, {"for_s": float("nan")}, {"for_s": True}, {"for_s": -5}, {"for_s": 1e9}, {"until": now}):
        with pytest.raises(Invalid):
            emergency_rows.expiry(**wrong, now=now)


def test_a_measure_said_twice_with_one_token_is_taken_once(world: World) -> None:
    took = [emergencies.raise_capacity(world.pool, maximum=6, expires_at=world.now + HOUR, actor="s", once="abc", now=world.now) for _ in range(2)]
    assert took[0].id == took[1].id
    assert AuditEntry.objects.filter(action="emergency.raise").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_double_click_at_the_same_instant_takes_a_measure_once(now: datetime) -> None:
    pool = factories.make_pool(now=now, base=1, max=2)
    took = race(6, lambda n: emergencies.raise_capacity(pool, maximum=6, expires_at=now + HOUR, actor="s", once="abc", now=now))
    assert len({row.id for row in took}) == 1
    assert EmergencyAction.objects.count() == AuditEntry.objects.filter(action="emergency.raise").count() == 1


def test_the_sizing_floor_and_its_reason_follow_a_raise(world: World) -> None:
    from fleet import providers

    emergencies.raise_capacity(world.pool, base=4, maximum=6, expires_at=world.now + HOUR, actor="s", now=world.now)
    found = observing.of(world.pool, provider=providers.of(world.pool), now=world.now)
    assert (found.seen.base, found.seen.maximum) == (4, 6)
    assert "raised" in found.beside["floor_why"]


# -- ending -------------------------------------------------------------------------------------


def test_an_ended_measure_is_undone_at_once_and_ending_it_again_changes_nothing(world: World) -> None:
    action = emergencies.pause_class(world.pool, priority="low", expires_at=world.now + HOUR, actor="s", now=world.now)
    assert measures.paused_from(world.pool.id, now=world.now) == 2
    ended = emergencies.end(action, actor="tom", reason="over", now=world.now)
    assert measures.paused_from(world.pool.id, now=world.now) is None
    again = emergencies.end(action, actor="someone else", now=world.now + HOUR / 2)
    assert (again.ended_at, again.ended_by) == (ended.ended_at, "tom")
    assert AuditEntry.objects.filter(action="emergency.end.pause_class").count() == 1


def test_what_expired_is_written_down_once(world: World) -> None:
    emergencies.shed(world.pool, priority="low", overflow_s=60, expires_at=world.now + HOUR, actor="s", now=world.now)
    assert emergencies.settle(fence=lambda: None, now=world.now) == "none over"
    assert [a.kind for a in emergencies.active(world.pool, now=world.now)] == ["shed"]
    assert emergencies.settle(fence=lambda: None, now=world.now + HOUR) == "1 expired"
    assert emergencies.settle(fence=lambda: None, now=world.now + HOUR) == "none over"
    row = EmergencyAction.objects.get()
    assert (row.ended_at, row.ended_by) == (row.expires_at, "expiry")
    assert AuditEntry.objects.filter(action="emergency.expire.shed").count() == 1
    assert emergencies.active(world.pool, now=world.now + HOUR) == []


# -- pausing ------------------------------------------------------------------------------------


def test_a_paused_class_and_those_behind_it_wait_in_their_places_and_others_are_served(world: World) -> None:
    low = submit(world, priority="low")
    normal = submit(world)
    high = submit(world, priority="high")
    pause = emergencies.pause_class(world.pool, priority="normal", expires_at=world.now + HOUR, actor="s", now=world.now)
    assert [a.job_id for a in queue.claim(world.worker, limit=5, now=world.now)] == [high.id]
    assert not queue.ready(world.worker, now=world.now)
    assert queue.claim(world.worker, limit=5, warm=["x"], now=world.now) == []
    before = {j.id: (j.status, j.fair_tag, j.queued_at) for j in (low, normal)}
    emergencies.end(pause, actor="s", now=world.now)
    assert {j.id: (j.status, j.fair_tag, j.queued_at) for j in Job.objects.filter(id__in=before)} == before
    assert [a.job_id for a in queue.claim(world.worker, limit=5, now=world.now)] == [normal.id, low.id]


def test_a_pause_ends_by_itself_and_a_deadline_still_counts(world: World) -> None:
    job = submit(world, priority="low")
    short = submit(world, priority="low", deadline_s=60)
    emergencies.pause_class(world.pool, priority="low", expires_at=world.now + HOUR, actor="s", now=world.now)
    assert queue.expire_deadlines(now=world.now + HOUR / 2) == 1
    assert [a.job_id for a in queue.claim(world.worker, limit=5, now=world.now + HOUR)] == [job.id]
    short.refresh_from_db()
    assert (short.status, short.failure_class, short.price_microusd) == ("expired", "capacity", 0)


def test_no_worker_is_bought_for_a_class_that_is_paused(world: World) -> None:
    from fleet import providers

    world.fill(5, priority="low")
    submit(world)
    assert observing.of(world.pool, provider=providers.of(world.pool), now=world.now).seen.queue == 6
    emergencies.pause_class(world.pool, priority="low", expires_at=world.now + HOUR, actor="s", now=world.now)
    assert observing.of(world.pool, provider=providers.of(world.pool), now=world.now).seen.queue == 1


def test_a_waiting_job_says_that_its_class_is_paused_and_for_how_long(world: World) -> None:
    low, high = submit(world, priority="low"), submit(world, priority="high")
    emergencies.pause_class(world.pool, priority="low", expires_at=world.now + HOUR, actor="s", now=world.now)
    said, other = held_up.of(low, now=world.now), held_up.of(high, now=world.now)
    assert said is not None
    assert (said.code, said.since, said.eta_s) == ("class_paused", world.now, 3600)
    assert other is None or other.code != "class_paused"


@pytest.mark.parametrize(("priority", "code"), [("high", "class_protected"), ("urgent", "class_unknown"), ("", "class_unknown")])
def test_only_classes_that_may_wait_can_be_paused_or_shed(world: World, priority: str, code: str) -> None:
    for take in (emergencies.pause_class, lambda pool, **k: emergencies.shed(pool, overflow_s=60, **k)):
        with pytest.raises(Invalid) as refusal:
            take(world.pool, priority=priority, expires_at=world.now + HOUR, actor="s", now=world.now)  # type: ignore[operator]
        assert refusal.value.code == code


@pytest.mark.django_db(transaction=True)
def test_claims_that_meet_a_pause_take_a_job_once_or_leave_it_in_its_place(now: datetime) -> None:
    world = World(now)
    for _ in range(4):
        jobs = world.fill(6, priority="low")
        workers = [factories.make_worker(world.pool, now=now) for _ in range(3)]

        def act(n: int, workers: list[Any] = workers) -> Any:
            if n == 3:
                return emergencies.pause_class(world.pool, priority="low", expires_at=now + HOUR, actor="s", now=now)
            return queue.claim(workers[n], limit=2, now=now)

        *claimed, pause = race(4, act)
        taken = [a.job_id for some in claimed for a in some]
        assert len(taken) == len(set(taken))
        assert queue.claim(factories.make_worker(world.pool, now=now), limit=9, now=now) == []
        left = set(Job.objects.filter(status="queued").values_list("id", flat=True))
        assert left | set(taken) == {j.id for j in jobs}
        emergencies.end(pause, actor="s", now=now)
        after = queue.claim(factories.make_worker(world.pool, now=now), limit=9, now=now)
        assert {a.job_id for a in after} == left
    forget()


# -- shedding -----------------------------------------------------------------------------------


def test_a_class_is_shed_only_while_it_would_wait_too_long(world: World) -> None:
    world.fill(10, priority="low")  # 100 s of work for one worker
    emergencies.shed(world.pool, priority="low", overflow_s=105, expires_at=world.now + HOUR, actor="s", now=world.now)
    kept = submit(world, priority="low")
    with pytest.raises(Unavailable) as refusal:
        submit(world, priority="low")
    said = refusal.value
    assert said.code == "temporarily_reduced_capacity"
    assert int(said.headers["Retry-After"]) == said.details["retry_after_s"] > 0
    assert submit(world, priority="normal").status == kept.status == "queued"
    assert Job.objects.filter(status="queued", priority=2).count() == 11, "what was admitted stays"


def test_a_shed_request_reserves_nothing(world: World) -> None:
    world.fill(5, priority="low")
    emergencies.shed(world.pool, priority="low", overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    account = world.batch.account
    account.refresh_from_db()
    before = (account.reserved_microusd, account.active_jobs)
    with pytest.raises(Unavailable):
        submit(world, priority="low")
    account.refresh_from_db()
    assert (account.reserved_microusd, account.active_jobs) == before


def test_the_wait_of_a_newcomer_counts_not_that_of_the_batch_before_it(world: World) -> None:
    world.fill(30)
    emergencies.shed(world.pool, priority="normal", overflow_s=60, expires_at=world.now + HOUR, actor="s", now=world.now)
    with pytest.raises(Unavailable):
        submit(world)
    assert submit(world, customer=world.other).status == "queued"


def test_a_retry_is_answered_with_its_job_however_much_is_shed(world: World) -> None:
    first = submit(world, priority="low", idempotency_key="k", body_sha256="b")
    world.fill(20, priority="low")
    emergencies.shed(world.pool, priority="low", overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    assert submit(world, priority="low", idempotency_key="k", body_sha256="b").id == first.id


def test_what_the_cache_answers_is_never_shed(world: World) -> None:
    world.workflow.result_cache_s = 3600
    world.workflow.save()
    done = submit(world, priority="low", inputs={"seed": 7})
    (leased,) = queue.claim(world.worker, now=world.now)
    queue.complete(world.worker, job_id=leased.job_id, attempt=1, completion=queue.Completion("succeeded"), now=world.now)
    world.fill(20, priority="low")
    emergencies.shed(world.pool, priority="low", overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    emergencies.fast_mode(world.workflow, version=1, overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    same = submit(world, priority="low", inputs={"seed": 7})
    assert (same.source, same.copied_from_id, same.version_id) == ("cache", done.id, world.live.id)


def test_smoke_jobs_are_neither_shed_nor_changed(world: World) -> None:
    world.fill(20, priority="low")
    emergencies.shed(world.pool, priority="low", overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    emergencies.fast_mode(world.workflow, version=1, overflow_s=1, expires_at=world.now + HOUR, actor="s", now=world.now)
    job = submit(world, priority="low", source=Job.SMOKE)
    assert (job.version_id, job.fast) == (world.live.id, None)


@pytest.mark.parametrize("overflow_s", [0, -1, 0.5, 1e9, float("nan"), True, "60"])
def test_an_overflow_that_is_no_wait_is_refused(world: World, overflow_s: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        emergencies.shed(world.pool, priority="low", overflow_s=overflow_s, expires_at=world.now + HOUR, actor="s", now=world.now)
    assert refusal.value.code == "overflow_invalid"


# -- fast mode ----------------------------------------------------------------------------------


def fast(world: World, **fields: Any) -> EmergencyAction:
    terms: dict[str, Any] = {"overflow_s": 60, "expires_at": world.now + HOUR, "actor": "sarah", "now": world.now}
    made = emergencies.fast_mode(world.workflow, **(terms | fields))
    forget()
    return made


def test_overflow_runs_the_cheaper_version_and_the_job_says_so(world: World) -> None:
    fast(world, version=1)
    assert submit(world, inputs={"steps": 30}).fast is None, "nothing waits yet"
    world.fill(10)
    job = submit(world, inputs={"width": 128})
    assert job.version_id == world.cheap.id
    assert job.inputs["width"] == 128
    assert "steps" not in job.inputs
    shown = presenting.job(job)
    assert shown["version"] == 1
    assert shown["fast"]["asked_version"] == 2
    assert "version 1" in shown["fast"]["reason"]


def test_an_input_the_customer_wrote_stays_unless_the_operator_said_so(world: World) -> None:
    world.fill(20)
    measure = fast(world, overrides={"steps": 8})
    assert submit(world, inputs={"steps": 40}).inputs["steps"] == 40
    changed = submit(world)
    assert (changed.inputs["steps"], changed.fast["asked_inputs"]) == (8, {"steps": 30})
    emergencies.end(measure, actor="s", now=world.now)
    fast(world, overrides={"steps": 8}, force=["steps"])
    forced = submit(world, inputs={"steps": 40})
    assert (forced.inputs["steps"], forced.version_id) == (8, world.live.id)
    assert presenting.job(forced)["fast"]["asked_inputs"] == {"steps": 40}


def test_inputs_the_cheaper_version_does_not_take_run_as_they_were_asked(world: World) -> None:
    world.fill(20)
    fast(world, version=1)
    job = submit(world, inputs={"steps": 40})
    assert (job.version_id, job.fast, job.inputs["steps"]) == (world.live.id, None, 40)


def test_a_pinned_version_stays(world: World) -> None:
    world.fill(20)
    fast(world, version=1)
    forget()
    job = admission.submit(customer=world.batch, api_key=None, workflow=world.workflow, version=world.live, pinned=True, inputs={}, now=world.now).job
    assert (job.version_id, job.fast) == (world.live.id, None)


def test_the_random_seed_survives_and_the_price_is_never_above_what_was_asked(world: World) -> None:
    world.fill(20)
    usual = submit(world)
    fast(world, version=1)
    job = submit(world, inputs={"seed": 5})
    assert (job.inputs["seed"], job.version_id) == (5, world.cheap.id)
    assert job.quote_microusd <= usual.quote_microusd


def test_a_fast_job_has_the_result_key_of_what_runs(world: World) -> None:
    world.workflow.result_cache_s = 3600
    world.workflow.save()
    world.fill(20)
    fast(world, version=1)
    job = submit(world, inputs={"seed": 5})
    assert job.result_key == result_cache.key_of(world.cheap, job.inputs) != ""


def test_waiting_jobs_are_untouched_unless_they_are_included(world: World) -> None:
    world.fill(20)
    fast(world, version=1)
    assert not Job.objects.filter(version=world.cheap, status="queued").exists()


def test_waiting_jobs_far_back_are_changed_in_their_places_and_put_back_when_it_ends(world: World) -> None:
    world.fill(20)
    before = {j.id: (j.version_id, j.inputs, j.fair_tag, j.quote_microusd, j.result_key) for j in Job.objects.filter(status="queued")}
    measure = fast(world, version=1, include_waiting=True)
    rows = list(Job.objects.filter(status="queued").order_by("fair_tag"))
    near, far = rows[:7], rows[7:]
    assert {j.version_id for j in near} == {world.live.id}, "the first ones wait less than a minute"
    assert {j.version_id for j in far} == {world.cheap.id}
    assert measure.terms["changed"] == len(far)
    assert {j.id: (j.fair_tag, j.quote_microusd) for j in rows} == {id_: (tag, quote) for id_, (_, _, tag, quote, _) in before.items()}
    (leased,) = queue.claim(world.worker, now=world.now)
    emergencies.end(measure, actor="s", now=world.now)
    after = {j.id: (j.version_id, j.inputs, j.fair_tag, j.quote_microusd, j.result_key) for j in Job.objects.filter(status="queued")}
    assert after == {id_: row for id_, row in before.items() if id_ != leased.job_id}
    assert not Job.objects.filter(status="queued").exclude(fast=None).exists()


@pytest.mark.django_db(transaction=True)
def test_claims_that_meet_a_change_of_waiting_jobs_run_one_or_the_other_whole(now: datetime) -> None:
    world = World(now)
    world.fill(24)
    workers = [factories.make_worker(world.pool, now=now) for _ in range(4)]
    terms: dict[str, Any] = {"version": 1, "overflow_s": 1, "include_waiting": True, "expires_at": now + HOUR, "actor": "s", "now": now}
    results = race(5, lambda n: emergencies.fast_mode(world.workflow, **terms) if n == 4 else [queue.claim(workers[n], limit=2, now=now) for _ in range(2)])
    assert not [r for r in results if isinstance(r, BaseException)]
    leased = [a for per in results[:4] for batch in per for a in batch]
    for assignment in leased:
        job = Job.objects.get(id=assignment.job_id)
        assert (job.version_id, job.inputs) == (assignment.version_id, assignment.inputs)
        assert ("steps" in job.inputs) == (job.version_id == world.live.id)
    assert len({a.job_id for a in leased}) == len(leased) == 16
    forget()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "fast_changes_nothing"),
        ({"version": 2}, "version_is_live"),
        ({"version": 9}, "version_unknown"),
        ({"version": 10**12}, "version_unknown"),
        ({"overrides": {"stepz": 3}}, "override_unknown"),
        ({"overrides": {"steps": 0}}, "override_invalid"),
        ({"overrides": {"steps": "many"}}, "override_invalid"),
        ({"overrides": [1]}, "wrong_type"),
        ({"overrides": {"steps": 3}, "force": ["width"]}, "force_unknown"),
        ({"version": 1, "overrides": {"steps": 3}}, "override_unknown"),
        ({"version": 1, "overflow_s": 0}, "overflow_invalid"),
    ],
)
def test_fast_mode_that_cannot_be_is_refused(world: World, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        fast(world, **fields)
    assert refusal.value.code == code
    assert refusal.value.suggestion
    assert not EmergencyAction.objects.exists()


def test_fast_mode_needs_something_released_and_a_pool(world: World, now: datetime) -> None:
    bare = factories.make_workflow(now=now, pool=world.pool)
    with pytest.raises(Conflict):
        emergencies.fast_mode(bare, version=1, overflow_s=60, expires_at=now + HOUR, actor="s", now=now)
    world.workflow.pool_slug = "nowhere"
    with pytest.raises(WorkflowError) as refusal:
        emergencies.fast_mode(world.workflow, version=1, overflow_s=60, expires_at=now + HOUR, actor="s", now=now)
    assert refusal.value.code == "pool_missing"


# -- what it costs ------------------------------------------------------------------------------


def test_admission_and_claims_run_no_statement_more_within_a_second(world: World) -> None:
    """The measures are read once a second a process: with none, and with one elsewhere, a job costs what it did."""
    elsewhere = factories.make_pool(now=world.now, base=1, max=2)
    emergencies.raise_capacity(elsewhere, maximum=6, expires_at=world.now + HOUR, actor="s", now=world.now)
    emergencies.pause_class(elsewhere, priority="low", expires_at=world.now + HOUR, actor="s", now=world.now)
    factories.submit(world.batch, world.workflow, now=world.now)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        factories.submit(world.batch, world.workflow, now=world.now)
        queue.claim(world.worker, now=world.now)
    assert not [q["sql"] for q in asked.captured_queries if "emergency" in q["sql"]]
