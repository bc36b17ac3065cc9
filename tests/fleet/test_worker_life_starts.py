"""Workers that cannot start: ordering stops, the previous image is tried once, and everybody who waits is told why."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from django.test import Client

from controlplane.kernel import sql
from controlplane.kernel.models import AuditEntry
from fleet import events, held_up, measures, presenting, queue, scaling
from fleet.models import EmergencyAction, Job, PolicyRevision, ScalingDecision, Worker
from tests import factories
from tests.fleet.life_world import World

pytestmark = pytest.mark.django_db


def said(job: Job, world: World) -> str:
    found = held_up.of(Job.objects.get(id=job.id), now=world.now)
    return found.code if found else ""


def test_a_new_image_that_cannot_start_gives_way_to_the_one_before_once(now: datetime) -> None:
    world = World(now, base=1, image="worker@sha256:new", previous_image="worker@sha256:old")
    world.machines.bad_images.add("worker@sha256:new")
    world.run(60)
    pool = world.fresh_pool
    assert (pool.image, pool.previous_image, pool.halted_at) == ("worker@sha256:old", "worker@sha256:new", None)
    assert world.machines.launched == 4  # three that failed, and one that did not
    row = ScalingDecision.objects.get(action="image")
    assert (row.applied, row.inputs["image_from"], row.inputs["image_to"]) == (0, "worker@sha256:new", "worker@sha256:old")
    assert "worker@sha256:new" in row.reason and "worker@sha256:old" in row.reason
    entry = AuditEntry.objects.get(action="pool.change")
    assert (entry.actor, entry.after["image"]) == ("scaler", "worker@sha256:old")
    assert PolicyRevision.objects.get(pool=pool).terms["image"] == "worker@sha256:old"
    assert [w.image for w in world.live("idle")] == ["worker@sha256:old"]
    failed = Worker.objects.filter(stop_reason="start_failed").first()
    assert failed is not None and failed.engine_log == ["ImportError: no module named agent"] and failed.stop_message == "Its image has no agent."


def test_when_the_one_before_fails_too_ordering_stops_for_good(now: datetime) -> None:
    world = World(now, base=1, image="new", previous_image="old")
    world.machines.bad_images |= {"new", "old"}
    world.run(200)
    pool = world.fresh_pool
    assert (pool.image, pool.previous_image) == ("old", "new") and pool.halted_at is not None
    assert world.machines.launched == 6 and ScalingDecision.objects.filter(action="image").count() == 1
    assert ScalingDecision.objects.first().action == "halted"
    scaling.resume(pool, actor="olga", now=world.now)
    world.run(60)
    assert ScalingDecision.objects.filter(action="image").count() == 1 and world.fresh_pool.halted_at is not None  # no ping-pong


def test_without_a_previous_image_or_when_it_is_the_failing_one_ordering_stops(now: datetime) -> None:
    for terms in ({"image": "new"}, {"image": "new", "previous_image": "new"}):
        world = World(now, base=1, **terms)
        world.machines.bad_images.add("new")
        world.run(30)
        assert world.fresh_pool.halted_at is not None and not ScalingDecision.objects.filter(pool=world.pool, action="image").exists()


def test_workers_that_fail_beside_ready_ones_do_not_change_the_image(now: datetime) -> None:
    world = World(now, base=1, image="new", previous_image="old")
    world.run(5)
    world.machines.bad_images.add("elsewhere")
    assert world.fresh_pool.image == "new"
    world.submit(10)
    world.run(10)
    assert world.fresh_pool.image == "new" and not ScalingDecision.objects.filter(action="image").exists()


def test_waiting_jobs_are_told_that_workers_cannot_start_and_nothing_of_ours(now: datetime) -> None:
    world = World(now, base=1, image="registry.internal/secret:1")
    world.machines.bad_images.add("registry.internal/secret:1")
    (job,) = world.submit()
    world.run(30)
    job = Job.objects.select_related("workflow", "version").get(id=job.id)
    found = held_up.of(job, now=world.now)
    assert found is not None and (found.code, found.since) == ("workers_cannot_start", world.fresh_pool.halted_at)
    text = json.dumps(presenting.job(job, waiting=found))
    assert "Workers cannot start" in text and "secret" not in text and world.pool.slug not in text
    assert "capacity" not in found.reason


def test_a_deadline_that_passes_meanwhile_says_the_same(now: datetime) -> None:
    world = World(now, base=0)
    job = factories.submit(world.customer, world.workflow, now=now, deadline_s=60)
    other = World(now, base=0)
    usual = factories.submit(other.customer, other.workflow, now=now, deadline_s=60)
    world.pool.halted_at, world.pool.halted_reason = now, "three failed"
    world.pool.save()
    queue.expire_deadlines(now=now + timedelta(seconds=61))
    job.refresh_from_db()
    usual.refresh_from_db()
    assert (job.status, job.error["code"]) == ("expired", "workers_cannot_start") and "could not start" in job.error["message"]
    assert (usual.status, usual.error["code"]) == ("expired", "deadline_passed")


def test_why_a_job_waits_is_said_in_each_case(now: datetime) -> None:
    world = World(now, base=0, max=1)
    (job,) = world.submit()
    assert said(job, world) == "workers_starting"  # scaled to zero: one is ordered
    coming = world.worker(state="starting", ready_at=None, idle_since=None)
    world.now += timedelta(seconds=20)
    found = held_up.of(job, now=world.now)
    assert found is not None and (found.code, found.eta_s) == ("workers_starting", 70.0)
    Worker.objects.filter(id=coming.id).update(state="busy")
    assert said(job, world) == "at_capacity"
    Worker.objects.filter(id=coming.id).update(state="idle")
    assert said(job, world) == "in_line"
    EmergencyAction.objects.create(
        kind="pause_class", pool=world.pool, priority=1, starts_at=now, expires_at=now + timedelta(minutes=10), actor="olga",
    )  # fmt: skip
    measures.forget()
    found = held_up.of(job, now=world.now)
    assert found is not None and (found.code, found.since, found.eta_s) == ("class_paused", now, 580.0)
    world.claim(coming)
    Job.objects.filter(id=job.id).update(status="succeeded", finished_at=now, price_microusd=0, lease_until=None)
    assert said(job, world) == ""


def test_an_external_pool_without_workers_says_so(now: datetime) -> None:
    world = World(now, provider="external")
    assert said(world.submit()[0], world) == "no_workers"


def test_the_api_says_it_when_a_job_is_looked_at_and_not_when_it_is_sent(now: datetime) -> None:
    world = World(now, base=0)
    _, secret = factories.make_key(world.customer, now=now)
    bearer = {"Authorization": f"Bearer {secret}"}
    client = Client()
    sent = client.post(f"/v1/workflows/{world.workflow.slug}/jobs", data=b"{}", content_type="application/json", headers=bearer)
    assert sent.status_code == 202 and sent.json()["waiting"] is None
    shown = client.get(f"/v1/jobs/{sent.json()['id']}", headers=bearer).json()
    assert set(shown["waiting"]) == {"code", "reason", "since", "eta_s"} and shown["waiting"]["code"] == "workers_starting"
    assert client.get("/v1/jobs", headers=bearer).json()["results"][0]["waiting"]["code"] == "workers_starting"
    assert '"code":"workers_starting"' in events.render(Job.objects.select_related("workflow", "version").get(id=sent.json()["id"]))


def test_looking_at_why_costs_one_statement(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(now)
    world.worker()
    jobs = world.submit(5)
    held_up.of(jobs[0], now=now)
    asked: list[str] = []
    rows = sql.rows  # plain statements go past Django's own count on PostgreSQL
    monkeypatch.setattr(sql, "rows", lambda statement, parameters=(): asked.append(statement) or rows(statement, parameters))
    known: dict[int, held_up.Standing] = {}
    assert {held_up.of(job, now=now, known=known) is None for job in jobs} == {False} and len(asked) == 1


def test_a_worker_whose_engine_comes_up_again_is_not_taken_for_one_that_never_started(now: datetime) -> None:
    world = World(now, base=1)
    worker = world.worker()
    world.now += timedelta(hours=2)
    queue.heartbeat(Worker.objects.get(id=worker.id), state="starting", now=world.now)
    world.tick(agents=False)
    assert Worker.objects.get(id=worker.id).state == "starting"
    for _ in range(13):
        queue.heartbeat(Worker.objects.get(id=worker.id), state="starting", now=world.now)
        world.tick(10, agents=False)
    ended = Worker.objects.get(id=worker.id)
    assert (ended.stop_reason, "went down" in ended.stop_message) == ("start_timeout", True)
