"""Jobs over HTTP: submitting, waiting, replaying, listing, canceling, following, downloading."""

import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.kernel.ids import uuid7
from fleet.api import accepting, waiting
from fleet.models import Job
from tests.controlplane import api_world as world

pytestmark = pytest.mark.django_db
SUBMIT = "/v1/workflows/paint/jobs"


@pytest.fixture
def api():
    world.workflow()
    return world.caller()


@pytest.fixture
def worked(monkeypatch):
    """Whoever waits finds the job done after the first look."""
    done = []

    def pause(seconds):
        job = Job.objects.filter(status="queued").order_by("id").first()
        if job is not None and not done:
            done.append(world.finish(job.id, **pause.how))

    pause.how = {}
    monkeypatch.setattr(waiting.until_over, "__kwdefaults__", {"pause": pause})
    return pause


def test_a_submitted_job_is_queued_with_its_defaults_and_place(api):
    response = api.post(SUBMIT, {"inputs": {"width": 100}, "metadata": {"order": 7}})
    assert response.status_code == 202, response.content
    job = response.json()
    assert (job["status"], job["workflow"], job["version"], job["position"]) == ("queued", "paint", 1, 0)
    assert job["eta_s"] > 0
    assert job["inputs"] == {"width": 100, "color": 255}
    assert job["metadata"] == {"order": 7}
    assert list(job) == [
        *("id", "workflow", "version", "status", "progress", "position", "eta_s", "waiting", "created_at", "started_at", "finished_at", "price_usd"),
        *("inputs", "fast", "outputs", "error", "metadata"),
    ]
    assert response["Location"] == f"http://testserver/v1/jobs/{job['id']}"
    assert "requests" in response["RateLimit"]
    shown = api.get(f"/v1/jobs/{job['id']}").json()
    assert shown == job | {"eta_s": shown["eta_s"], "waiting": shown["waiting"]}
    assert (job["waiting"], shown["waiting"]["code"]) == (None, "workers_starting")


@pytest.mark.parametrize("body", [{}, {"inputs": {}}, b""])
def test_no_inputs_at_all_run_the_defaults(api, body):
    response = api.post(SUBMIT, body) if body != b"" else api.client.post(SUBMIT, headers=api.auth, content_type="application/json")
    assert response.status_code == 202, response.content
    assert response.json()["inputs"] == {"width": 64, "color": 255}


def test_the_queue_counts_who_is_before(api):
    api.post(SUBMIT)
    second = api.post(SUBMIT).json()
    urgent = api.post(SUBMIT, {"priority": "low"}).json()
    assert (second["position"], urgent["position"]) == (1, 2)


def test_waiting_answers_with_the_finished_job(api, worked):
    response = api.post(SUBMIT, Prefer="wait=10")
    assert (response.status_code, response["Preference-Applied"]) == (200, "wait=10")
    job = response.json()
    assert (job["status"], job["progress"], job["price_usd"]) == ("succeeded", 1.0, "0.00125")
    assert [o["name"] for o in job["outputs"]] == ["out 0.png"]
    assert job["outputs"][0]["url"].startswith("http://testserver/v1/jobs/")


def test_an_image_may_be_asked_for_itself(api, worked):
    response = api.post(SUBMIT, Prefer="wait=10", Accept="image/*")
    assert (response.status_code, response["Content-Type"]) == (200, "image/png")
    assert b"".join(response.streaming_content) == world.png(8, 8)
    job = response["X-Comfyplane-Job"]
    assert response["Content-Location"] == f"http://testserver/v1/jobs/{job}/outputs/0/out%200.png"
    assert "requests" in response["RateLimit"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", "audio/*", "image/webp", "application/json, image/*;q=0.5"])
def test_without_a_fitting_output_the_job_itself_answers(api, worked, accept):
    response = api.post(SUBMIT, Prefer="wait=10", Accept=accept)
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    assert response.json()["status"] == "succeeded"


@pytest.mark.parametrize(("failure_class", "status"), [("customer_input", 422), ("workflow", 422)])
def test_who_wanted_an_image_of_a_failed_job_gets_the_reason(api, worked, failure_class, status):
    worked.how = {
        "outcome": "failed",
        "failure_class": failure_class,
        "error": {"code": "node_failed", "message": "A node failed.", "suggestion": "Try other inputs."},
    }
    response = api.post(SUBMIT, Prefer="wait=10", Accept="image/png")
    assert (response.status_code, response.json()["error"]["code"]) == (status, "node_failed")
    assert response.json()["error"]["details"]["status"] == "failed"
    plain = api.get(f"/v1/jobs/{response.json()['error']['details']['job']}").json()
    assert (plain["status"], plain["error"]["code"], plain["error"]["class"]) == ("failed", "node_failed", failure_class)


def test_a_job_that_is_not_done_in_time_answers_accepted(api):
    response = api.post(SUBMIT, Prefer="wait=0")
    assert response.status_code == 202
    assert "Preference-Applied" not in response
    response = api.post(SUBMIT, Prefer="wait=1", Accept="image/*")
    assert (response.status_code, response["Preference-Applied"]) == (202, "wait=1")
    assert response.json()["status"] == "queued"


def test_only_so_many_may_wait(monkeypatch):
    monkeypatch.setattr(waiting, "_places", threading.BoundedSemaphore(1))
    seen = []

    def pause(seconds):
        seen.append(waiting.until_over(uuid7(), seconds=30, pause=lambda s: pytest.fail("the second one must not wait")))
        monkeypatch.setattr(waiting.time, "monotonic", lambda: 1e12)

    assert waiting.until_over(uuid7(), seconds=30, pause=pause) is False
    assert seen == [False]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10), ("respond-async, wait=5", 5), ("WAIT=3; x=y", 3), ('wait="7"', 7), ("wait = 8", 8), ("wait=100000", 60), ("wait=-1", 0),
        ("wait=abc", 0),        ("wait", 0), ("", 0), ("wait=1e3", 0), ("wait=" + "9" * 400, 0), ("," * 5000, 0), ("wait=0", 0),
    ],
)  # fmt: skip
def test_prefer_is_read_leniently_and_bounded(header, seconds):
    assert waiting.asked(header) == seconds


@pytest.mark.parametrize(
    ("accept", "wants"),
    [("", False), ("*/*", False), ("application/json", False), ("image/*", True), ("image/png, */*;q=0.1", True), ("*/*, image/png;q=0.1", False), 
     ("nonsense", False),     ("image/png;q=0", False), ("image/png;q=zzz", False), (";;;,,,", False), ("application/octet-stream", True)],
)  # fmt: skip
def test_accept_says_whether_bytes_are_wanted(accept, wants):
    assert accepting.wants_bytes(accept) is wants


def test_the_same_key_and_body_replay_the_first_job(api):
    first = api.post(SUBMIT, {"inputs": {"width": 10, "color": 1}}, Idempotency_Key="k-1")
    again = api.post(SUBMIT, b'{ "inputs": {"color": 1, "width": 10} }', Idempotency_Key="k-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert Job.objects.count() == 1


def test_a_replay_of_a_finished_job_shows_its_outputs(api):
    first = api.post(SUBMIT, Idempotency_Key="k-1").json()
    world.finish(first["id"])
    again = api.post(SUBMIT, Idempotency_Key="k-1")
    assert (again.status_code, len(again.json()["outputs"])) == (200, 1)
    picture = api.post(SUBMIT, Idempotency_Key="k-1", Accept="image/*")
    assert picture["Content-Type"] == "image/png"


def test_the_same_key_with_another_body_is_refused(api):
    first = api.post(SUBMIT, {"inputs": {"width": 10}}, Idempotency_Key="k-1").json()
    refused = api.post(SUBMIT, {"inputs": {"width": 11}}, Idempotency_Key="k-1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert refused.json()["error"]["details"]["job"] == first["id"]
    assert Job.objects.count() == 1


def test_a_replayed_upload_is_the_same_request(api):
    world.workflow("mend", expose=[{"name": "image", "node": "3", "input": "image"}])
    made = [api.form("/v1/workflows/mend/jobs", {"image": world.upload("a.png", world.png())}, Idempotency_Key="k") for _ in range(2)]
    assert [r.status_code for r in made] == [202, 202]
    assert made[0].json()["id"] == made[1].json()["id"]


def test_a_form_carries_inputs_files_and_fields(api):
    world.workflow("mend", expose=[{"name": "image", "node": "3", "input": "image"}, *world.EXPOSED])
    response = api.form(
        "/v1/workflows/mend/jobs",
        {
            "image": world.upload("../../etc/cat.png", world.png(20, 10)),
            "width": "32",
            "inputs": '{"color": 5}',
            "metadata": '{"a": [1]}',
            "priority": "low",
            "deadline_s": "60",
        },
    )
    assert response.status_code == 202, response.content
    job = response.json()
    assert (job["inputs"]["width"], job["inputs"]["color"], job["metadata"]) == (32, 5, {"a": [1]})
    file = api.get(f"/v1/files/{job['inputs']['image']}").json()
    assert (file["name"], file["media_type"], file["width"], file["height"]) == ("cat.png", "image/png", 20, 10)
    kept = Job.objects.get(id=job["id"])
    assert kept.priority == 2
    assert kept.deadline_at - kept.created_at == timedelta(seconds=60)


def test_a_data_url_is_kept_as_a_file(api):
    import base64

    world.workflow("mend", expose=[{"name": "image", "node": "3", "input": "image"}])
    url = "data:image/png;base64," + base64.b64encode(world.png()).decode()
    job = api.post("/v1/workflows/mend/jobs", {"inputs": {"image": url}}).json()
    assert api.get(f"/v1/files/{job['inputs']['image']}").status_code == 200


def test_lists_are_paged_newest_first_and_filtered(api):
    made = [api.post(SUBMIT).json()["id"] for _ in range(5)]
    world.finish(made[0])
    seen, url = [], "/v1/jobs?limit=2"
    while url:
        page = api.get(url).json()
        assert len(page["results"]) <= 2
        seen += [job["id"] for job in page["results"]]
        url = page["next"]
    assert seen == made[::-1]
    done = api.get("/v1/jobs?status=succeeded").json()["results"]
    assert [job["id"] for job in done] == [made[0]]
    assert len(done[0]["outputs"]) == 1
    assert api.get("/v1/jobs?workflow=other").json()["results"] == []
    soon = (timezone.now() + timedelta(minutes=1)).isoformat()
    assert len(api.get(f"/v1/jobs?created_before={soon.replace('+', '%2B')}").json()["results"]) == 5
    assert api.get(f"/v1/jobs?created_after={soon}").json()["results"] == []
    assert api.get("/v1/jobs?created_after=2099-01-01").json()["results"] == []


def test_a_list_costs_the_same_whatever_its_length(api, django_assert_max_num_queries):
    for _ in range(6):
        world.finish(api.post(SUBMIT).json()["id"])
    with django_assert_max_num_queries(4):
        api.get("/v1/jobs?limit=50")


def test_a_job_is_canceled_once(api):
    job = api.post(SUBMIT).json()
    canceled = api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    assert canceled.json()["error"]["code"] == "canceled"
    again = api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "canceled")
    done = api.post(SUBMIT).json()
    world.finish(done["id"])
    late = api.post(f"/v1/jobs/{done['id']}/cancel")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "job_finished")


def test_events_say_the_state_once_and_ask_to_come_back(api):
    job = api.post(SUBMIT).json()
    response = api.get(f"/v1/jobs/{job['id']}/events", Accept="text/event-stream")
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    lines = response.content.decode().split("\n")
    assert lines[0] == "retry: 2000"
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines[2:5]}
    assert said["event"] == "queued"
    assert json.loads(said["data"])["id"] == job["id"]
    quiet = api.get(f"/v1/jobs/{job['id']}/events", Last_Event_ID=said["id"])
    assert "data:" not in quiet.content.decode()
    world.finish(job["id"])
    assert "event: succeeded" in api.get(f"/v1/jobs/{job['id']}/events", Last_Event_ID=said["id"]).content.decode()


def test_outputs_are_downloaded_whole_and_in_parts(api):
    job = api.post(SUBMIT).json()
    world.finish(job["id"], outputs=2)
    outputs = api.get(f"/v1/jobs/{job['id']}").json()["outputs"]
    assert [(o["kind"], o["media_type"], o["width"], o["height"]) for o in outputs] == [("image", "image/png", 8, 8), ("image", "image/png", 9, 8)]
    whole = api.get(outputs[1]["url"])
    data = b"".join(whole.streaming_content)
    assert (whole["Content-Type"], len(data)) == ("image/png", outputs[1]["bytes"])
    part = api.get(outputs[1]["url"], Range="bytes=1-3")
    assert (part.status_code, b"".join(part.streaming_content)) == (206, data[1:4])
    assert api.get(outputs[1]["url"], If_None_Match=whole["ETag"]).status_code == 304
    beyond = api.get(outputs[1]["url"], Range="bytes=999999-")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "range_not_satisfiable")
    for wrong in ("9/out%201.png", "1/other.png", "-1/x", "0x1/x", "٣/x", "99999999999/x"):
        missing = api.get(f"/v1/jobs/{job['id']}/outputs/{wrong}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "output_not_found")


def test_outputs_of_an_attempt_that_failed_are_not_shown(api):
    from fleet.models import Output

    job = api.post(SUBMIT).json()
    world.finish(job["id"])
    Output.objects.update(published=False)
    assert api.get(f"/v1/jobs/{job['id']}").json()["outputs"] == []
    assert api.get(f"/v1/jobs/{job['id']}/outputs/0/out%200.png").status_code == 404


def test_an_earlier_version_can_be_pinned_and_an_unreleased_one_cannot(api):
    from builds import importing, versions

    graph = {**world.GRAPH, "5": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}
    newer = importing.import_graph(document=graph, slug="paint", author="t", expose=world.EXPOSED, draft=True, library=None, now=timezone.now())
    assert api.post(SUBMIT).json()["version"] == 1
    refused = api.post(SUBMIT, {"version": 2})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "version_not_found")
    type(newer.version).objects.update(runnable=True)
    newer.version.refresh_from_db()
    versions.promote(workflow=newer.workflow, channel="production", version=newer.version, actor="t", now=timezone.now())
    assert api.post(SUBMIT).json()["version"] == 2
    assert api.post(SUBMIT, {"version": 1}).json()["version"] == 1
