"""The smoke matrix, a version's smoke page, the operators' API and the command: what they show, refuse and start."""

from __future__ import annotations

import csv
import io
import json
import uuid

import pytest
from django.core.management import call_command
from django.utils import timezone

from billing import customers
from builds.models import SmokeInput
from controlplane.console import overview
from controlplane.kernel.models import AuditEntry
from fleet import queries_smoke, queries_traffic, smoke
from fleet.models import Job, SmokeRun
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import login, signed_in

pytestmark = pytest.mark.django_db
BROKEN = {"code": "node_failed", "message": rows.XSS, "suggestion": "Mend it."}


@pytest.fixture
def world(now):
    """One that passed, one that fails, one never run, one draft."""
    factories.make_customer(now=now, slug=customers.HOUSE)
    made = {name: factories.make_runnable(now=now, slug=name) for name in ("good", "bad", "fresh")}
    draft = factories.make_workflow(now=now, slug="draft")
    factories.make_version(draft, now=now, live=False, runnable=False)
    for name, error in (("good", None), ("bad", BROKEN)):
        run = smoke.request(version=made[name].versions.get(), trigger="import", actor="smoke", now=now)
        smoke.close(run.id, error=error, report={"run_s": 1.5, "outputs": 1}, now=now)
    return made


def test_the_matrix_says_how_much_is_covered_and_puts_the_failing_first(world):
    page = signed_in("viewer").get("/ops/smoke/").content.decode()
    assert "<h1>66% of endpoints covered, 1 failing</h1>" in page
    assert page.index(">bad<") < page.index(">draft<") < page.index(">fresh<") < page.index(">good<")
    assert "Never run" in page and "Draft, cannot run" in page and "Passed" in page
    assert rows.XSS not in page and "&lt;script&gt;" in page
    assert "Run again" not in page, "a viewer may not run"
    assert "Run again" in signed_in("operator").get("/ops/smoke/").content.decode()


@pytest.mark.parametrize(
    ("query", "shown"), [("show=failing", {"bad"}), ("show=never", {"fresh"}), ("show=passed", {"good"}), ("q=goo", {"good"}), ("show=nonsense&q=", None)]
)
def test_filters_are_in_the_address_and_in_the_csv(world, query, shown):
    answer = signed_in("viewer").get(f"/ops/smoke/?{query}&format=csv")
    found = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert {r["workflow"] for r in found} == (shown or {"good", "bad", "fresh", "draft"})
    if shown == {"bad"}:
        assert (found[0]["result"], found[0]["error_code"], found[0]["run_s"], found[0]["channels"]) == ("failed", "node_failed", "1.5", "production")
        page = signed_in("operator").get(f"/ops/smoke/?{query}").content.decode()
        assert ">bad<" in page and ">good<" not in page


def test_without_workflows_and_without_matches_the_page_says_what_to_do(now):
    client = signed_in("viewer")
    assert "No endpoint to try yet" in client.get("/ops/smoke/").content.decode()
    factories.make_runnable(now=now, slug="only")
    assert "No endpoints match" in client.get("/ops/smoke/?q=zzz").content.decode()


def test_a_matrix_that_cannot_be_read_says_so(world, monkeypatch):
    monkeypatch.setattr(queries_smoke, "matrix", lambda: 1 / 0)
    answer = signed_in("viewer").get("/ops/smoke/")
    assert answer.status_code == 200
    assert "Could not load this part" in answer.content.decode()


@pytest.mark.parametrize(("what", "started"), [("failing", {"bad"}), ("all", {"good", "bad", "fresh"})])
def test_all_or_only_the_failing_are_run_again(world, what, started):
    client = signed_in("operator")
    answer = client.post("/ops/smoke/run/", {"what": what})
    assert answer.status_code == 302 and answer.url == "/ops/smoke/"
    assert set(SmokeRun.objects.filter(state="queued", trigger="person").values_list("version__workflow__slug", flat=True)) == started
    assert AuditEntry.objects.filter(action="smoke.run").count() == len(started)


def test_one_is_run_again_and_a_second_click_starts_nothing(world):
    client = signed_in("operator")
    version = world["bad"].versions.get()
    for _ in range(2):
        client.post("/ops/smoke/run/", {"what": str(version.id), "back": str(version.id)})
    assert SmokeRun.objects.filter(state="queued").count() == 1
    assert client.post("/ops/smoke/run/", {"what": str(version.id), "back": str(version.id)}).url == "/ops/smoke/bad/v1/"
    for nonsense in ("", "../..", str(uuid.uuid4())):
        assert client.post("/ops/smoke/run/", {"what": nonsense}).status_code == 302
    assert SmokeRun.objects.filter(state="queued").count() == 1
    assert "There is no such version" in client.get("/ops/smoke/").content.decode()


def test_running_and_writing_want_the_operators_role(world):
    client = signed_in("viewer")
    assert client.post("/ops/smoke/run/", {"what": "all"}).status_code == 403
    assert client.post("/ops/smoke/good/v1/", {"act": "write", "inputs": "{}"}).status_code == 403
    assert not SmokeRun.objects.filter(state="queued").exists()
    assert not SmokeInput.objects.exists()


def test_a_version_shows_its_runs_and_its_inputs_can_be_written_and_taken_back(world):
    client = signed_in("operator")
    page = client.get("/ops/smoke/bad/v1/").content.decode()
    assert "Mend it." in page and rows.XSS not in page
    assert "Generated: the smallest values that still run." in page
    wrong = client.post("/ops/smoke/bad/v1/", {"act": "write", "inputs": '{"width": 99999}'})
    assert wrong.status_code == 422
    assert "outside its range" in wrong.content.decode() and "99999" in wrong.content.decode()
    assert client.post("/ops/smoke/bad/v1/", {"act": "write", "inputs": "{nonsense"}).status_code == 422
    assert client.post("/ops/smoke/bad/v1/", {"act": "write", "inputs": '{"width": 100}'}).status_code == 302
    kept = SmokeInput.objects.get()
    assert (kept.origin, kept.inputs["width"]) == ("written", 100)
    assert "Written by ops-operator" in client.get("/ops/smoke/bad/v1/").content.decode()
    client.post("/ops/smoke/bad/v1/", {"act": "generate"})
    assert SmokeInput.objects.get().origin == "generated"
    assert client.get("/ops/smoke/bad/v9/").status_code == 404


def test_a_test_run_is_recorded_from_the_page_and_a_strangers_job_is_not(world, now):
    client = signed_in("operator")
    house = customers.Customer.objects.get(slug=customers.HOUSE)
    done = rows.job(house, world["good"], now=now, status="succeeded", inputs={"width": 77, "color": 1})
    assert str(done.id) in client.get("/ops/smoke/good/v1/").content.decode()
    other = rows.job(house, world["bad"], now=now, status="succeeded")
    assert client.post("/ops/smoke/good/v1/", {"act": "record", "job": str(other.id)}).status_code == 422
    assert client.post("/ops/smoke/good/v1/", {"act": "record", "job": str(done.id)}).status_code == 302
    assert (SmokeInput.objects.get().origin, SmokeInput.objects.get().inputs["width"]) == ("recorded", 77)


def test_the_operators_api_shows_starts_and_refuses(world, client):
    auth = login("operator")
    shown = client.get("/ops/api/smoke", headers=auth).json()
    assert (shown["endpoints"], shown["covered"], shown["failing"]) == (3, 2, 1)
    assert shown["results"][0]["workflow"] == "bad" and shown["results"][0]["last"]["error"]["code"] == "node_failed"

    def post(body):
        return client.post("/ops/api/smoke", json.dumps(body), content_type="application/json", headers=auth)

    started = post({"workflow": "good", "version": 1})
    assert started.status_code == 202
    run = started.json()["runs"][0]
    assert client.get(f"/ops/api/smoke/runs/{run['id']}", headers=auth).json() == run
    assert (run["state"], run["requested_by"], run["job"]) == ("queued", "ops-operator", None)
    assert {r["workflow"] for r in post({"all": True}).json()["runs"]} == {"good", "bad", "fresh"}
    for body, status, code in (
        ({}, 422, "nothing_named"), ({"workflow": "draft", "version": 1}, 409, "version_not_runnable"), ({"workflow": "none"}, 404, "unknown_workflow"),
        ({"workflow": "good", "version": True}, 422, "wrong_type"), ({"extra": 1}, 422, "unknown_field"),
        ({"workflow": "good", "version": 8}, 404, "unknown_version"),
    ):  # fmt: skip
        answer = post(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert client.get(f"/ops/api/smoke/runs/{uuid.uuid4()}", headers=auth).status_code == 404
    assert client.get("/ops/api/smoke").status_code == 401


def command(capsys, *args):
    """Exit code and what was printed as JSON."""
    try:
        call_command("smoke", *args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, json.loads(capsys.readouterr().out)


def test_the_command_starts_runs_waits_and_tells_by_its_exit_code(world, capsys, monkeypatch):
    code, said = command(capsys, "good", "--json")
    assert (code, said["open"], said["runs"][0]["state"]) == (0, 1, "queued")
    ends = {"good": None, "bad": BROKEN}

    def controller(seconds):
        for run in SmokeRun.objects.filter(state="queued"):
            smoke.close(run.id, error=ends[run.version.workflow.slug], now=timezone.now())

    monkeypatch.setattr("controlplane.management.commands.smoke.time.sleep", controller)
    assert command(capsys, "good@production", "--wait", "--json")[0] == 0
    code, said = command(capsys, "bad@1", "--wait", "--json")
    assert (code, said["failed"], said["runs"][0]["error"]["code"]) == (1, 1, "node_failed")
    code, said = command(capsys, "draft@1", "--json")
    assert (code, said["error"]["code"]) == (2, "version_not_runnable")
    assert command(capsys, "--json")[1]["error"]["code"] == "nothing_named"
    assert command(capsys, "good", "--all", "--json")[0] == 2


def test_the_command_keeps_inputs_from_a_file_or_a_job_before_it_runs(world, now, capsys, tmp_path):
    file = tmp_path / "inputs.json"
    file.write_text('{"width": 99}')
    assert command(capsys, "good", "--inputs", str(file), "--json")[0] == 0
    assert (SmokeInput.objects.get().origin, SmokeInput.objects.get().inputs["width"]) == ("written", 99)
    house = customers.Customer.objects.get(slug=customers.HOUSE)
    done = rows.job(house, world["good"], now=now, status="succeeded", inputs={"width": 55, "color": 1})
    assert command(capsys, "good", "--record", str(done.id), "--json")[0] == 0
    assert (SmokeInput.objects.get().origin, SmokeInput.objects.get().inputs["width"]) == ("recorded", 55)
    file.write_text('{"width": "wide"}')
    for words, code in (
        (("good", "--inputs", str(file)), "wrong_type"), (("good", "--inputs", str(tmp_path / "none")), "file_unreadable"),
        (("bad", "--record", str(done.id)), "job_not_found"), (("--all", "--record", str(done.id)), "inputs_of_many"),
    ):  # fmt: skip
        status, said = command(capsys, *words, "--json")
        assert (status, said["error"]["code"]) == (2, code)
    assert SmokeInput.objects.get().inputs["width"] == 55


def test_a_workflows_own_tab_shows_its_rows_and_comes_back_to_it(world):
    client = signed_in("operator")
    page = client.get("/ops/workflows/bad/smoke/").content.decode()
    assert page.count("<tr>") == 2 and "Run again" in page and rows.XSS not in page
    assert 'href="/ops/workflows/bad/smoke/" aria-current="page"' in page
    version = world["bad"].versions.get()
    assert client.post("/ops/smoke/run/", {"what": str(version.id), "back": "bad"}).url == "/ops/workflows/bad/smoke/"
    assert client.post("/ops/smoke/run/", {"what": str(version.id), "back": "//evil.example"}).url == "/ops/smoke/"
    assert client.get("/ops/workflows/none/smoke/").status_code == 404


def test_smoke_jobs_are_named_for_what_they_are(world, now):
    smoke.step(fence=lambda: None, now=now)
    job = Job.objects.filter(source="smoke").first()
    assert "as a smoke run" in signed_in("viewer").get(f"/ops/jobs/{job.id}/").content.decode()


def test_a_long_matrix_shows_its_first_rows_and_says_how_to_reach_the_rest(world, monkeypatch):
    monkeypatch.setattr("controlplane.console.smoke.MOST_SHOWN", 2)
    page = signed_in("viewer").get("/ops/smoke/").content.decode()
    assert ">bad<" in page and ">good<" not in page
    assert "2 of 4 versions; filter by name, or take the CSV, for the 4 that match" in page


def test_an_installation_that_only_we_used_is_still_a_fresh_one(now):
    house = factories.make_customer(now=now, slug=customers.HOUSE)
    workflow = factories.make_runnable(now=now)
    factories.submit(house, workflow, now=now, source=Job.SMOKE)
    Job.objects.update(status="succeeded", finished_at=now, price_microusd=0)
    assert overview.untouched((queries_traffic.Traffic(now, now, 60), None), [])
    factories.submit(house, workflow, now=now, source="console")
    assert not overview.untouched((queries_traffic.Traffic(now, now, 60), None), [])
