"""The catalogue: the seed's shape, measured figures or null, and documents that a client can be made from."""

import csv
import io

import jsonschema
import pytest
from django.utils import timezone

from builds.models import Channel, Version, Workflow
from controlplane.api import schema
from fleet import queries_measured, rollups
from fleet.models import SmokeRun
from tests.controlplane import api_world as world
from tests.staff import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def api():
    queries_measured.forget()
    world.workflow("paint")
    yield world.caller()
    queries_measured.forget()


def test_what_was_never_run_has_no_figures(api):
    entry = api.get("/v1/workflows/paint").json()
    assert {k: entry[k] for k in ("id", "category", "endpoint", "version", "status")} == {
        "id": "paint", "category": "image", "endpoint": "/v1/workflows/paint/jobs", "version": 1, "status": "production"
    }  # fmt: skip
    assert entry["performance"] == {
        "speed": None, "quality": None, "cost_per_image_usd": None, "cost_per_job_usd": None, "typical_time_seconds": None,
        "success_rate": None, "measured_jobs": 0, "measured_smoke_runs": 0, "measured_from": None
    }  # fmt: skip


def test_figures_are_measured_and_priced_by_the_callers_own_plan(api):
    for outputs, outcome in ((2, "succeeded"), (2, "succeeded"), (0, "failed")):
        job = api.post("/v1/workflows/paint/jobs").json()
        world.finish(job["id"], outputs=outputs, outcome=outcome, failure_class="" if outputs else "workflow", error=None)
    rollups.recompute(now=timezone.now())
    found = api.get("/v1/workflows/paint").json()["performance"]
    assert (found["measured_jobs"], found["success_rate"], found["speed"]) == (3, 0.6667, "fastest")
    assert found["typical_time_seconds"] == pytest.approx(1.0, rel=0.1)
    assert found["cost_per_job_usd"] == pytest.approx(2 * found["cost_per_image_usd"], rel=0.01)
    dear = world.caller("dear", price_per_job_microusd=1_000_000)
    assert dear.get("/v1/workflows/paint").json()["performance"]["cost_per_job_usd"] > 1


def smoked(workflow, *, run_s=1.0, state="passed", **report):
    """An ended smoke run of what production runs."""
    now = timezone.now()
    version = Version.objects.get(channels__workflow__slug=workflow, channels__name="production")
    error = {"code": "x", "message": "m", "suggestion": "s"} if state == "failed" else None
    said = {"run_s": run_s, "busy_s": 0.5, "cost_microusd": 90, "images": 2, "cached": False, **report}
    SmokeRun.objects.create(
        version=version, trigger="calendar", state=state, requested_at=now, requested_by="smoke", finished_at=now, error=error, report=said
    )  # fmt: skip


def test_before_any_customer_ran_it_figures_are_those_of_smoke_runs_and_say_so(api):
    for run_s in (1.0, 3.0, 5.0):
        smoked("paint", run_s=run_s)
    smoked("paint", run_s=0.001, cached=True)
    smoked("paint", state="failed")
    smoked("paint", state="failed", run_s=None)  # it never ran, so it says nothing of the workflow
    found = api.get("/v1/workflows/paint").json()["performance"]
    assert (found["measured_from"], found["measured_jobs"], found["measured_smoke_runs"]) == ("smoke_runs", 0, 5)
    assert (found["typical_time_seconds"], found["speed"], found["success_rate"]) == (3.0, "fast", 0.8)
    assert found["cost_per_job_usd"] == pytest.approx(0.001 + 0.5 * 0.0005)
    assert found["cost_per_image_usd"] == pytest.approx(found["cost_per_job_usd"] / 2, abs=1e-6)


def test_speed_and_cost_are_the_customers_as_soon_as_there_is_one_and_success_counts_both_until_they_are_enough(api):
    smoked("paint", run_s=100.0)
    for n in range(2):
        world.finish(api.post("/v1/workflows/paint/jobs").json()["id"], outcome="succeeded" if n else "failed", failure_class="" if n else "workflow")
    rollups.recompute(now=timezone.now())
    found = api.get("/v1/workflows/paint").json()["performance"]
    assert (found["measured_from"], found["measured_jobs"], found["measured_smoke_runs"]) == ("jobs", 2, 1)
    assert found["typical_time_seconds"] == pytest.approx(1.0, rel=0.1)
    assert found["success_rate"] == 0.6667
    for _ in range(queries_measured.ENOUGH):
        world.finish(api.post("/v1/workflows/paint/jobs").json()["id"])
    rollups.recompute(now=timezone.now())
    queries_measured.forget()
    found = api.get("/v1/workflows/paint").json()["performance"]
    assert (found["measured_jobs"], found["measured_smoke_runs"], found["success_rate"]) == (22, 0, round(21 / 22, 4))


def test_smoke_runs_of_a_version_customers_cannot_call_say_nothing(api):
    smoked("paint")
    Channel.objects.update(name="lab")
    version = Version.objects.get()
    SmokeRun.objects.update(version=version)
    assert queries_measured.measured([version.workflow_id], now=timezone.now())[version.workflow_id].smoke_runs == 0


def test_the_console_and_the_catalogue_tell_the_same_of_a_day(api):
    for n in range(4):
        job = api.post("/v1/workflows/paint/jobs").json()
        world.finish(job["id"], outputs=n > 0, outcome="succeeded" if n else "failed", failure_class="" if n else "workflow", error=None)
    world.workflow("hidden", released=False)
    rollups.recompute(now=timezone.now())
    offered = {w["id"]: w for w in api.get("/v1/workflows").json()["results"]}
    client = signed_in("admin")
    rows = {r["slug"]: r for r in csv.DictReader(io.StringIO(b"".join(client.get("/ops/workflows/?format=csv").streaming_content).decode().lstrip("\ufeff")))}
    assert {slug: int(r["stable_version"]) for slug, r in rows.items() if r["stable_version"]} == {slug: w["version"] for slug, w in offered.items()}
    assert float(rows["paint"]["success_share_24h"]) == offered["paint"]["performance"]["success_rate"] == 0.75


def test_the_catalogue_is_paged_by_name_and_holds_only_what_is_offered(api):
    for slug in ("alpha", "beta", "gamma"):
        world.workflow(slug)
    world.workflow("hidden", released=False)
    Workflow.objects.filter(slug="gamma").update(archived_at=timezone.now())
    seen, url = [], "/v1/workflows?limit=2"
    while url:
        page = api.get(url).json()
        seen += [w["id"] for w in page["results"]]
        url = page["next"]
    assert seen == ["alpha", "beta", "paint"]


def test_the_list_costs_the_same_whatever_its_length(api, django_assert_max_num_queries):
    for n in range(6):
        world.workflow(f"w-{n}")
    api.get("/v1/workflows")
    with django_assert_max_num_queries(4):
        assert len(api.get("/v1/workflows").json()["results"]) == 7


def test_the_schema_is_what_submission_enforces(api):
    said = api.get("/v1/workflows/paint/schema").json()
    jsonschema.Draft202012Validator.check_schema(said)
    judge = jsonschema.Draft202012Validator(said)
    for inputs in ({}, {"width": 1}, {"width": 513}, {"width": "1"}, {"width": True}, {"x": 1}, {"width": 1.5}, {"color": None}):
        status = api.post("/v1/workflows/paint/jobs", {"inputs": inputs}).status_code
        assert (status == 202) == judge.is_valid(inputs), inputs


def test_a_workflow_has_a_document_of_its_own_with_typed_inputs(api):
    document = api.get("/v1/workflows/paint/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "http://testserver"}]
    assert "/v1/workflows/paint/jobs" in document["paths"]
    assert "/v1/usage" not in document["paths"]
    assert document["components"]["schemas"]["Inputs"]["properties"]["width"]["maximum"] == 512
    assert document["components"]["schemas"]["JobRequest"]["properties"]["inputs"] == {"$ref": "#/components/schemas/Inputs"}
    assert "UsagePage" not in document["components"]["schemas"]
    assert schema.document()["components"]["schemas"]["JobRequest"]["properties"]["inputs"]["type"] == "object", "the whole document stays as it was"


def test_the_document_names_every_address_and_only_those(client):
    from tests.controlplane.test_tenancy import CASES

    response = client.get("/v1/openapi.json")
    document = response.json()
    assert document["openapi"] == "3.1.0"
    assert {p.replace("{", "<str:").replace("}", ">").lstrip("/") for p in document["paths"]} == {route for route, (_, kind) in CASES.items() if kind != "open"}
    for path in document["paths"].values():
        for operation in path.values():
            assert {"401", "403"} <= set(operation["responses"])
            assert operation["operationId"] and operation["summary"]
    assert client.get("/v1/openapi.json", headers={"If-None-Match": response["ETag"]}).status_code == 304


def test_the_page_of_the_document_needs_no_inline_script(client):
    response = client.get("/v1/docs/")
    page = response.content.decode()
    assert "<script>" not in page
    assert "'unsafe-inline'" not in response["Content-Security-Policy"].split("style-src")[0]
    assert "http" not in page.replace("http-equiv", "")
    script = client.get("/v1/docs/?script=")
    assert script["Content-Type"] == "application/javascript"
    assert "/v1/openapi.json" in script.content.decode()
