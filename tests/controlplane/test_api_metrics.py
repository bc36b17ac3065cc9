"""/metrics: the names operators expect, from the database, with bounded labels, for this machine or a token."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from controlplane.api import metrics
from controlplane.kernel.models import LoopLease
from fleet import rollups, smoke
from fleet.models import MinuteRollup
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh():
    metrics.forget()
    yield
    metrics.forget()


def scrape(**meta):
    response = Client().get("/metrics", **meta)
    assert response.status_code == 200, response.content
    return {(s.name, *sorted(s.labels.values())): s.value for family in text_string_to_metric_families(response.content.decode()) for s in family.samples}


def test_jobs_pools_loops_and_drift_are_there():
    world.workflow()
    api = world.caller()
    world.finish(api.post("/v1/workflows/paint/jobs").json()["id"])
    world.finish(api.post("/v1/workflows/paint/jobs").json()["id"], outcome="failed", failure_class="workflow")
    api.post("/v1/workflows/paint/jobs")
    LoopLease.objects.create(name="autoscale", ticked_at=timezone.now() - timedelta(seconds=30))
    rollups.recompute(now=timezone.now())
    seen = scrape()
    assert seen["workflow_executions_total", "paint", "succeeded"] == 1
    assert seen["workflow_executions_total", "failed", "paint"] == 1
    assert seen["workflow_execution_duration_seconds_count", "paint"] == 1
    assert seen["workflow_execution_duration_seconds_bucket", "+Inf", "paint"] == 1
    assert seen["comfyplane_queue_depth", "default"] == 1
    assert seen["comfyplane_workers", "default", "idle"] == 2
    assert 29 < seen["comfyplane_loop_age_seconds", "autoscale"] < 60
    assert seen[("comfyplane_reconcile_drift",)] == 0
    assert any(key[0] == "api_request_duration_seconds_count" and "v1/workflows/<str:slug>/jobs" in key for key in seen)
    assert scrape()["workflow_executions_total", "paint", "succeeded"] == 1, "a second scrape counts nothing twice"


def test_settled_minutes_are_read_once_and_late_ones_again(monkeypatch):
    workflow = world.workflow()
    version = workflow.versions.get()
    customer, *_ = world.customer()
    now = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    row = {"version": version, "customer": customer, "pool": world.pool()}
    MinuteRollup.objects.create(minute=now - timedelta(hours=1), succeeded=5, **row)
    late = MinuteRollup.objects.create(minute=now - timedelta(minutes=2), succeeded=1, **row)
    MinuteRollup.objects.create(minute=now - timedelta(days=1), succeeded=100, **row)
    day = metrics.Day()
    assert day.tallies(now=now)["paint"].counts["succeeded"] == 6
    late.succeeded = 3
    late.save()
    assert day.tallies(now=now)["paint"].counts["succeeded"] == 8
    assert day.tallies(now=now + timedelta(minutes=30))["paint"].counts["succeeded"] == 8
    assert day.tallies(now=now + timedelta(minutes=40))["paint"].counts["succeeded"] == 8
    assert day.tallies(now=now + timedelta(days=1)) == {}, "a new day begins at nothing"


def test_a_job_without_its_lines_is_drift():
    world.workflow()
    api = world.caller()
    job = api.post("/v1/workflows/paint/jobs").json()
    from fleet.models import Job

    Job.objects.filter(id=job["id"]).update(status="canceled", finished_at=timezone.now(), price_microusd=0)
    assert scrape()[("comfyplane_reconcile_drift",)] == 2, "its lines are missing, and its account still counts it"


def test_many_workflows_share_one_label(monkeypatch):
    monkeypatch.setattr(metrics, "MOST_WORKFLOWS", 2)
    customer, *_ = world.customer()
    now = timezone.now()
    for n in range(4):
        version = world.workflow(f"w-{n}").versions.get()
        MinuteRollup.objects.create(minute=now.replace(second=0, microsecond=0), version=version, customer=customer, pool=world.pool(), succeeded=1)
    tallies = metrics.Day().tallies(now=now)
    assert len(tallies) == 3
    assert tallies["other"].counts["succeeded"] == 2


@pytest.mark.parametrize(
    ("meta", "status"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, 200),
        ({"REMOTE_ADDR": "::1"}, 200),
        ({"REMOTE_ADDR": "203.0.113.9"}, 403),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 403),
        ({"REMOTE_ADDR": ""}, 403),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer sesame"}, 200),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer wrong"}, 403),
        ({"REMOTE_ADDR": "203.0.113.9", "HTTP_AUTHORIZATION": "Bearer"}, 403),
    ],
)
def test_who_may_scrape(meta, status, settings):
    settings.METRICS_TOKEN = "sesame"
    assert Client().get("/metrics", **meta).status_code == status


def test_without_a_token_set_none_opens_it(settings):
    settings.METRICS_TOKEN = ""
    assert Client().get("/metrics", REMOTE_ADDR="203.0.113.9", HTTP_AUTHORIZATION="Bearer ").status_code == 403


def test_behind_a_proxy_the_token_that_was_made_opens_it(settings):
    answer = Client().get("/metrics", headers={"X-Forwarded-For": "127.0.0.1", "Authorization": f"Bearer {settings.METRICS_TOKEN}"})
    assert settings.METRICS_TOKEN and answer.status_code == 200


def test_smoke_runs_are_counted_by_state_and_workflow():
    good, bad = world.workflow("good").versions.get(), world.workflow("bad").versions.get()
    world.workflow("fresh")
    at = timezone.now()
    for version, error in ((good, None), (bad, {"code": "x", "message": "m", "suggestion": "s"})):
        run = smoke.request(version=version, trigger="import", actor="smoke", now=at)
        smoke.close(run.id, error=error, report={"run_s": 2.5}, now=at)
    seen = scrape()
    assert [seen["comfyplane_smoke_endpoints", state] for state in ("passed", "failed", "never")] == [1, 1, 1]
    assert (seen["comfyplane_smoke_passed", "good"], seen["comfyplane_smoke_passed", "bad"]) == (1, 0)
    assert seen["comfyplane_smoke_run_seconds", "good"] == 2.5
    assert ("comfyplane_smoke_passed", "fresh") not in seen
