"""Smoke runs: due at import, deploy and once a day; through the real queue as ours; passed only with outputs that are good."""

from __future__ import annotations

import hashlib
import io
import uuid
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import customers
from billing.models import UsageEntry
from builds import versions
from builds.models import SmokeInput
from controlplane.kernel import blobs
from controlplane.kernel.errors import Conflict
from controlplane.kernel.models import AuditEntry
from fleet import observing, providers, queries_smoke, queue, reconcile, rollups, smoke, smoke_rule, tasks
from fleet.models import Job, MinuteRollup, Output, SmokeRun
from fleet.smoke_rule import Subject
from tests import factories
from tests.controlplane.work_rows import png

HOUR = timedelta(hours=1)


def unfenced():
    """Tests lead every loop."""


@pytest.fixture
def house(now):
    plan = factories.make_plan(now=now, price_per_job_microusd=0, price_per_gpu_second_microusd=0)
    return factories.make_customer(now=now, slug=customers.HOUSE, plan=plan)


@pytest.fixture
def made(now, house):
    return factories.make_runnable(now=now, slug="paint")


def step(now, **given):
    return smoke.step(fence=unfenced, now=now, **given)


def work(job, *, now, measurements=None, outcome="succeeded", error=None, failure_class="", nodes=()):
    """Do a queued job as a worker would; one output with these measurements."""
    worker = factories.make_worker(job.pool, now=now)
    (leased,) = queue.claim(worker, limit=1, now=now)
    assert leased.job_id == job.id
    listed = []
    if outcome == "succeeded" and measurements is not None:
        data = png().getvalue()
        blob = blobs.put(io.BytesIO(data), media_type="image/png", max_bytes=10**6, now=now)
        Output.objects.create(
            job=job, attempt=leased.attempt, index=0, name="out.png", kind="image", media_type="image/png", blob=blob, size_bytes=len(data), created_at=now
        )
        listed = [{"index": 0, "sha256": hashlib.sha256(data).hexdigest(), "measurements": measurements}]
    done = queue.Completion(outcome=outcome, failure_class=failure_class, error=error, outputs=listed, timings={"busy_s": 0.5}, nodes=list(nodes))
    queue.complete(worker, job_id=job.id, attempt=leased.attempt, completion=done, now=now + timedelta(seconds=2))


GOOD = {"decodes": True, "blank": False, "has_nan": None, "width": 32, "height": 24}


@pytest.mark.django_db
def test_a_version_that_was_kept_runs_through_the_queue_and_passes(now, made):
    assert step(now) == "1 asked for, 1 started"
    run = SmokeRun.objects.get()
    job = run.job
    assert (run.state, run.trigger, run.started_at) == ("running", "import", now)
    assert (job.customer.slug, job.source, job.priority, job.quote_microusd) == ("console", "smoke", Job.Priority.LOW, 0)
    assert job.inputs == SmokeInput.objects.get().inputs == {"width": 64, "color": 3368652}
    assert step(now + timedelta(seconds=1)) == ""
    work(job, now=now, measurements=GOOD)
    end = now + timedelta(seconds=3)
    assert step(end) == "1 ended"
    run.refresh_from_db()
    assert (run.state, run.finished_at, run.error) == ("passed", end, None)
    assert (run.report["run_s"], run.report["outputs"], run.report["images"], run.report["cached"]) == (2.0, 1, 1, False)
    assert step(end + HOUR) == ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("measurements", "code"),
    [
        (None, "no_outputs"),
        ({**GOOD, "blank": True}, "output_blank"),
        ({**GOOD, "decodes": False}, "output_broken"),
        ({**GOOD, "has_nan": True}, "output_not_finite"),
    ],
)
def test_a_job_that_ends_well_is_not_enough(now, made, measurements, code):
    step(now)
    run = SmokeRun.objects.get()
    work(run.job, now=now, measurements=measurements)
    step(now + timedelta(seconds=3))
    run.refresh_from_db()
    assert (run.state, run.error["code"]) == ("failed", code)
    assert run.error["message"] and run.error["suggestion"]


@pytest.mark.django_db
def test_a_failed_job_fails_the_run_in_its_own_words(now, made):
    step(now)
    run = SmokeRun.objects.get()
    said = {"code": "node_failed", "message": "KSampler broke.", "suggestion": "Mend it.", "details": {"traceback": "…"}}
    work(run.job, now=now, outcome="failed", failure_class="workflow", error=said)
    step(now + timedelta(seconds=3))
    run.refresh_from_db()
    assert run.error == {"code": "node_failed", "message": "KSampler broke.", "suggestion": "Mend it."}


@pytest.mark.django_db
def test_a_pool_without_workers_fails_the_run_instead_of_waiting_for_ever(now, made):
    step(now)
    run = SmokeRun.objects.get()
    late = now + HOUR + timedelta(seconds=1)
    queue.expire_deadlines(now=late)
    step(late)
    run.refresh_from_db()
    assert (run.state, run.error["code"]) == ("failed", "no_worker")


@pytest.mark.django_db
def test_moving_a_channel_runs_the_version_again(now, made):
    first = made.versions.get()
    step(now)
    work(SmokeRun.objects.get().job, now=now, measurements=GOOD)
    step(now + timedelta(seconds=3))
    versions.promote(workflow=made, channel="staging", version=first, actor="ada", now=now + HOUR)
    assert step(now + HOUR) == "1 asked for, 1 started"
    assert SmokeRun.objects.first().trigger == "deploy"


@pytest.mark.django_db
def test_one_run_of_a_version_is_open_whoever_asks(now, made):
    version = made.versions.get()
    first = smoke.request(version=version, trigger="person", actor="ada", now=now)
    assert smoke.request(version=version, trigger="deploy", actor="smoke", now=now + HOUR).pk == first.pk
    assert SmokeRun.objects.count() == 1


@pytest.mark.django_db
def test_a_draft_is_refused_and_never_asked_for_by_itself(now, house):
    workflow = factories.make_workflow(now=now)
    version = factories.make_version(workflow, now=now, live=False, runnable=False)
    assert step(now) == ""
    with pytest.raises(Conflict) as refused:
        smoke.request(version=version, trigger="person", actor="ada", now=now)
    assert refused.value.code == "version_not_runnable"


@pytest.mark.django_db
def test_a_pool_runs_one_smoke_job_at_a_time_and_customers_come_first(now, house):
    pool = factories.make_pool(now=now)
    workflows = [factories.make_runnable(now=now, pool=pool) for _ in range(3)]
    assert step(now) == "3 asked for, 1 started"
    smoke_job = SmokeRun.objects.exclude(job=None).get().job
    theirs = factories.submit(factories.make_customer(now=now), workflows[0], now=now + timedelta(seconds=5))
    worker = factories.make_worker(pool, now=now)
    assert [a.job_id for a in queue.claim(worker, limit=2, now=now)] == [theirs.id, smoke_job.id]


@pytest.mark.django_db
def test_no_worker_is_bought_for_a_smoke_job_beside_one_that_lives(now, made):
    step(now)
    pool = SmokeRun.objects.get().job.pool
    assert observing.of(pool, provider=providers.of(pool), now=now).seen.queue == 1
    factories.make_worker(pool, now=now, state="busy")
    assert observing.of(pool, provider=providers.of(pool), now=now).seen.queue == 0


@pytest.mark.django_db
def test_a_smoke_job_is_in_no_customers_figure_costs_nobody_and_the_books_agree(now, made, house):
    step(now)
    work(SmokeRun.objects.get().job, now=now, measurements=GOOD)
    rollups.recompute(now=now + timedelta(minutes=1))
    assert not MinuteRollup.objects.exists()
    assert sum(UsageEntry.objects.filter(customer=house).values_list("amount_microusd", flat=True)) == 0
    assert reconcile.drift(now=now + timedelta(minutes=1)).total == 0


@pytest.mark.django_db
def test_the_result_cache_never_answers_a_smoke_job(now, house):
    workflow = factories.make_runnable(now=now, result_cache_s=3600)
    same = {"width": 64, "color": 3368652}
    work(factories.submit(house, workflow, now=now, inputs=same), now=now, measurements=GOOD)
    step(now + timedelta(seconds=5))
    assert SmokeRun.objects.get().job.status == "queued"


@pytest.mark.django_db
def test_a_controller_that_dies_between_job_and_row_leaves_one_job(now, made, monkeypatch):
    class Died(Exception):
        pass

    def dies():
        if Job.objects.filter(source="smoke").exists():
            raise Died

    with pytest.raises(Died):
        smoke.step(fence=dies, now=now)
    assert (SmokeRun.objects.get().state, Job.objects.count()) == ("queued", 1)
    step(now + timedelta(seconds=2))
    assert (SmokeRun.objects.get().job, Job.objects.count()) == (Job.objects.get(), 1)


@pytest.mark.django_db
def test_inputs_nobody_can_make_up_fail_the_run_with_what_to_do(now, house):
    film = {"name": "film", "node": "1", "input": "film", "type": "string", "kind": "video", "required": True}
    workflow = factories.make_workflow(now=now)
    factories.make_version(workflow, now=now, inputs=[film])
    step(now)
    run = SmokeRun.objects.get()
    assert (run.state, run.error["code"]) == ("failed", "smoke_input_needed")


@pytest.mark.django_db
def test_a_test_run_that_went_well_can_be_recorded_and_a_customers_job_cannot(now, made, house):
    ours = factories.submit(house, made, now=now, inputs={"width": 80})
    with pytest.raises(Conflict) as refused:
        smoke.record_inputs(job=ours, actor="ada", now=now)
    assert refused.value.code == "job_not_succeeded"
    work(ours, now=now, measurements=GOOD)
    ours.refresh_from_db()
    kept = smoke.record_inputs(job=ours, actor="ada", now=now)
    assert (kept.origin, kept.inputs["width"]) == ("recorded", 80)
    theirs = factories.submit(factories.make_customer(now=now), made, now=now)
    work(theirs, now=now, measurements=GOOD)
    theirs.refresh_from_db()
    with pytest.raises(Conflict) as refused:
        smoke.record_inputs(job=theirs, actor="ada", now=now)
    assert refused.value.code == "job_of_customer"


@pytest.mark.django_db
def test_the_matrix_counts_every_endpoint_and_puts_the_failing_first(now, made, house):
    other = factories.make_workflow(now=now, slug="zebra", pool=factories.make_pool(now=now))
    old = factories.make_version(other, now=now)
    newest = factories.make_version(other, now=now, live=False)
    draft = factories.make_workflow(now=now, slug="draft")
    factories.make_version(draft, now=now, live=False, runnable=False)
    empty = queries_smoke.matrix()
    assert (empty.endpoints, empty.covered, empty.coverage, empty.failing) == (3, 0, 0.0, 0)
    for run in (smoke.request(version=v, trigger="person", actor="ada", now=now) for v in (made.versions.get(), old, newest)):
        smoke.close(run.id, error={"code": "x", "message": "m", "suggestion": "s"} if run.version_id == newest.id else None, now=now)
    found = queries_smoke.matrix()
    assert (found.endpoints, found.covered, found.coverage, found.failing) == (3, 3, 1.0, 1)
    assert [row.workflow.slug for row in found.rows] == ["zebra", "draft", "paint"]
    assert [(c.version.number, c.newest, c.channels, c.state) for c in found.rows[0].cells] == [(2, True, [], "failed"), (1, False, ["production"], "passed")]
    assert found.rows[1].cells[0].state == "draft"
    assert [row.workflow.slug for row in queries_smoke.matrix(slug="paint").rows] == ["paint"]


@pytest.mark.django_db
def test_the_matrix_costs_the_same_whatever_its_length(now, made, django_assert_num_queries):
    with django_assert_num_queries(7):
        queries_smoke.matrix()
    for _ in range(5):
        factories.make_runnable(now=now)
    with django_assert_num_queries(7):
        assert len(queries_smoke.matrix().rows) == 6


ids = st.uuids()
moments = st.none() | st.datetimes()


@given(st.builds(Subject, ids, st.booleans(), st.booleans(), st.booleans(), moments, moments, st.booleans()), st.datetimes())
def test_what_is_due_is_runnable_idle_and_has_a_reason(one, at):
    for version, trigger in smoke_rule.due([one], now=at):
        assert version == one.version_id and one.runnable and not one.open
        if one.last_at is not None:
            assert {"deploy": one.moved_at is not None and one.moved_at > one.last_at, "calendar": one.production and at - one.last_at >= smoke_rule.EVERY}[
                trigger
            ]


def test_a_version_in_production_runs_once_a_day_and_others_do_not(now):
    live, idle = (Subject(uuid.uuid4(), production=production, newest=True, last_at=now) for production in (True, False))
    assert smoke_rule.due([live, idle], now=now + timedelta(hours=23)) == []
    assert smoke_rule.due([live, idle], now=now + timedelta(hours=24)) == [(live.version_id, "calendar")]


@pytest.mark.django_db
def test_a_run_is_audited_when_a_person_asked(now, made):
    smoke.request(version=made.versions.get(), trigger="person", actor="ada", now=now)
    assert AuditEntry.objects.filter(action="smoke.run", actor="ada").count() == 1


@pytest.mark.django_db
def test_old_runs_are_pruned_but_never_the_last_result_of_a_version(now, made):
    version = made.versions.get()
    for days in (200, 150, 100):
        run = smoke.request(version=version, trigger="calendar", actor="smoke", now=now - timedelta(days=days))
        smoke.close(run.id, error=None, now=now - timedelta(days=days))
    assert tasks.sweep(now=now)["smoke_runs"] == 2
    assert SmokeRun.objects.get().id == run.id
    assert tasks.sweep(now=now)["smoke_runs"] == 0
