"""POST /v1/generate: the workflow is chosen by measured facts, the reasons stay with the job, and what cannot be met is said with figures."""

from __future__ import annotations

import base64

import pytest
from django.utils import timezone

from builds.models import Channel, Workflow
from fleet import queries_measured
from fleet.models import Choice, CustomerFile, Job, SmokeRun
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db
TASK = "text-to-image"


def offer(slug, *, seconds=None, quality="", capabilities=None, **fields):
    """A workflow of the task, measured to take that long."""
    made = world.workflow(slug, **fields)
    Workflow.objects.filter(id=made.id).update(category=TASK, quality=quality, capabilities=capabilities or {})
    if seconds is not None:
        now = timezone.now()
        SmokeRun.objects.create(
            version=made.versions.get(), trigger="import", state="passed", requested_at=now, requested_by="smoke", finished_at=now,
            report={"run_s": seconds, "busy_s": seconds, "cost_microusd": 1, "images": 1},
        )  # fmt: skip
    return made


@pytest.fixture
def api():
    queries_measured.forget()
    offer("quick", seconds=2.0, quality="draft")
    offer("fine", seconds=20.0, quality="highest", capabilities={"face_consistency": True})
    offer("unknown", quality="high")
    yield world.caller()
    queries_measured.forget()


def ask(api, **body):
    return api.post("/v1/generate", {"task": TASK, **body})


def refused(answer, status, code):
    assert answer.status_code == status, answer.content
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"] and error["suggestion"]
    return error


def test_the_best_that_fits_runs_and_says_why(api):
    answer = ask(api, requirements={"max_seconds": 30}, inputs={"width": 32}, metadata={"mine": 1})
    assert answer.status_code == 202, answer.content
    said = answer.json()
    assert (said["workflow"], said["status"], said["inputs"]["width"], said["metadata"]) == ("fine", "queued", 32, {"mine": 1})
    choice = said["choice"]
    assert (choice["workflow"], choice["version"], choice["considered"]) == ("fine", 1, 3)
    assert "95% of its runs took at most 20 s, of 30 s allowed." in choice["why"]
    assert [(r["workflow"], r["lacks"][0]["requirement"], r["lacks"][0]["has"]) for r in choice["rejected"]] == [("unknown", "max_seconds", None)]
    assert answer["Location"].endswith(f"/v1/jobs/{said['id']}")
    assert "RateLimit" in answer
    plain = api.get(f"/v1/jobs/{said['id']}").json()
    assert {**plain, "choice": choice} == {**said, "position": plain["position"], "eta_s": plain["eta_s"], "waiting": plain["waiting"]}


@pytest.mark.parametrize(
    ("body", "workflow"),
    [
        ({"prefer": "speed"}, "quick"),
        ({"prefer": "cost"}, "quick"),
        ({}, "fine"),
        ({"requirements": {"max_seconds": 5}}, "quick"),
        ({"requirements": {"face_consistency": True}, "prefer": "speed"}, "fine"),
        ({"requirements": {"min_quality": "high", "max_cost": 1}}, "fine"),
        ({"task": "Text to_image"}, "fine"),
    ],
)
def test_requirements_and_preference_decide(api, body, workflow):
    assert ask(api, **body).json()["choice"]["workflow"] == workflow


def test_money_is_what_the_callers_plan_pays(api):
    assert ask(api, requirements={"max_cost": 0.003}).json()["workflow"] == "quick"
    dear = world.caller("dear", price_per_job_microusd=1_000_000)
    error = refused(ask(dear, requirements={"max_cost": 0.003}), 422, "no_workflow_matches")
    assert error["details"]["alternatives"][0]["lacks"][0]["has"] > 1


def test_no_match_answers_the_nearest_with_what_each_lacks(api):
    error = refused(ask(api, requirements={"max_seconds": 16, "face_consistency": True}), 422, "no_workflow_matches")
    assert [a["workflow"] for a in error["details"]["alternatives"]] == ["fine", "quick", "unknown"]
    assert error["details"]["alternatives"][0] == {
        "workflow": "fine", "version": 1, "endpoint": "/v1/workflows/fine/jobs",
        "lacks": [{"requirement": "max_seconds", "wanted": 16, "has": 20.0, "message": "95% of its runs took up to 20 s; 16 s was asked for."}],
    }  # fmt: skip
    assert error["alternative_endpoint"] == "/v1/workflows/fine/jobs"
    assert not Job.objects.exists()


def test_an_unknown_task_names_those_there_are(api):
    error = refused(ask(api, task="compose-a-symphony"), 422, "task_unknown")
    assert error["details"]["tasks"] == [TASK]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"task": None}, "missing_field", "task"), ({"task": ""}, "wrong_type", "task"), ({"task": 3}, "wrong_type", "task"),
        ({"task": "x" * 61}, "wrong_type", "task"),
        ({"requirements": {"colour": 1}}, "requirement_unknown", "requirements.colour"), ({"requirements": []}, "wrong_type", "requirements"),
        ({"requirements": {"max_cost": "cheap"}}, "wrong_type", "requirements.max_cost"), ({"prefer": "luck"}, "wrong_type", "prefer"),
        ({"dry_run": 1}, "wrong_type", "dry_run"), ({"nonsense": 1}, "unknown_field", "nonsense"), ({"version": 1}, "unknown_field", "version"),
        ({"priority": 5}, "wrong_type", "priority"), ({"inputs": []}, "inputs_not_object", "inputs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(api, body, code, field):
    error = refused(ask(api, **body), 422, code)
    assert error["details"]["field"] == field
    assert not Job.objects.exists()


def test_inputs_are_checked_as_the_chosen_workflow_checks_them(api):
    direct = api.post("/v1/workflows/fine/jobs", {"inputs": {"width": 9999, "wide": 1}}).json()["error"]
    error = refused(ask(api, inputs={"width": 9999, "wide": 1}), 422, "out_of_range")
    assert {k: error[k] for k in ("code", "message", "suggestion")} == {k: direct[k] for k in ("code", "message", "suggestion")}
    assert error["details"] == {**direct["details"], "workflow": "fine"}
    assert not Choice.objects.exists()


def test_one_that_takes_the_inputs_comes_before_one_that_does_not(api):
    offer("tall", seconds=9.0, quality="low", expose=[{"name": "height", "node": "1", "input": "height", "minimum": 1, "maximum": 512}])
    said = ask(api, inputs={"height": 64}).json()
    assert said["workflow"] == "tall"
    assert "takes the inputs you sent" in said["choice"]["why"][-1]


def test_files_inside_the_request_are_kept_once_and_large_ones_are_judged_by_their_kind(api):
    offer("mend", seconds=1.0, expose=[{"name": "image", "node": "3", "input": "image"}])
    picture = f"data:image/png;base64,{base64.b64encode(world.png(40, 30) + bytes(3_000)).decode()}"
    assert ask(api, inputs={"image": picture}, dry_run=True).json()["choice"]["workflow"] == "mend"
    assert not CustomerFile.objects.exists(), "a dry run keeps nothing"
    said = ask(api, inputs={"image": picture}).json()
    assert said["workflow"] == "mend"
    assert str(CustomerFile.objects.get().id) == said["inputs"]["image"]


def test_a_dry_run_gives_the_choice_and_the_most_it_costs_and_makes_no_job(api):
    answer = ask(api, inputs={"width": 8}, dry_run=True)
    assert answer.status_code == 200
    said = answer.json()
    assert set(said) == {"dry_run", "choice", "quote_usd", "inputs"} and said["inputs"]["width"] == 8
    assert not Job.objects.exists() and "RateLimit" in answer
    real = ask(api, inputs={"width": 8}).json()
    assert (said["quote_usd"], said["choice"]) == (real["price_usd"], real["choice"])
    refused(ask(api, inputs={"width": 0}, dry_run=True), 422, "out_of_range")
    refused(ask(api, inputs={"wide": 0}, dry_run=True), 422, "unknown_field")


def test_a_replay_gives_the_first_choice_whatever_was_measured_since(api):
    body = {"requirements": {"max_seconds": 30}, "inputs": {"color": 7}}
    first = api.post("/v1/generate", {"task": TASK, **body}, Idempotency_Key="k-1")
    assert first.json()["workflow"] == "fine"
    SmokeRun.objects.filter(version__workflow__slug="fine").delete()
    Channel.objects.filter(workflow__slug="quick").delete()
    queries_measured.forget()
    again = api.post("/v1/generate", {"task": TASK, **body}, Idempotency_Key="k-1")
    assert (again.status_code, again["Idempotency-Replayed"]) == (202, "true")
    assert (again.json()["id"], again.json()["choice"]) == (first.json()["id"], first.json()["choice"])
    assert Job.objects.count() == Choice.objects.count() == 1
    other = api.post("/v1/generate", {"task": TASK, "requirements": {"max_seconds": 31}, "inputs": {"color": 7}}, Idempotency_Key="k-1")
    refused(other, 422, "idempotency_key_reused")
    refused(api.post("/v1/workflows/fine/jobs", {"inputs": {"color": 7}}, Idempotency_Key="k-1"), 422, "idempotency_key_reused")


def test_with_prefer_wait_and_accept_the_output_itself_comes_back(api, monkeypatch):
    def over(job_id, **kwargs):
        world.finish(job_id)
        return True

    monkeypatch.setattr("fleet.api.waiting.until_over", over)
    answer = api.post("/v1/generate", {"task": TASK}, Prefer="wait=5", Accept="image/png")
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/png")
    said = api.post("/v1/generate", {"task": TASK}, Prefer="wait=5").json()
    assert (said["status"], said["choice"]["workflow"], len(said["outputs"])) == ("succeeded", "fine", 1)


def test_a_form_is_refused_with_what_to_do(api):
    answer = api.form("/v1/generate", {"task": TASK})
    assert "POST /v1/files" in refused(answer, 415, "unsupported_media_type")["suggestion"]


def test_limits_of_the_plan_and_the_scope_of_the_key_count(api):
    poor = world.caller("poor", monthly_limit_microusd=1)
    assert ask(poor).status_code == 402
    assert not Job.objects.exists() and not Choice.objects.exists()
    assert ask(world.caller("reader", scopes=["jobs:read"])).status_code == 403
    assert ask(world.Caller("")).status_code == 401


def test_what_is_archived_or_not_released_is_never_chosen(api):
    Workflow.objects.filter(slug="fine").update(archived_at=timezone.now())
    offer("lab-only", seconds=0.1, quality="highest", released=False)
    said = ask(api).json()
    assert (said["workflow"], said["choice"]["considered"]) == ("quick", 2)
