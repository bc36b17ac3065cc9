"""The pages of workflows: list, overview with its graph, form that runs a job, versions, settings, import."""

import ast
import csv
import html
import io
import json
import re
import shlex
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.models import UsageEntry
from builds import inputs, libraries
from builds.models import Channel, Version, Workflow
from controlplane.console import graph_view, rates, run_form, snippets
from controlplane.kernel.errors import Invalid
from controlplane.kernel.models import AuditEntry
from fleet import input_files, presenting, rollups
from fleet.models import CustomerFile, Job
from fleet.queries_workflows import NodeTimes
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
MOST_QUERIES, MOST_BYTES = 15, 120_000
TABS = ("", "api/", "versions/", "jobs/", "settings/")
INFO = {
    "EmptyImage": {
        "input": {"required": {"width": ["INT", {"default": 64, "min": 1, "max": 4096}], "height": ["INT", {"default": 64}]}},
        "output": ["IMAGE"],
        "output_node": False,
    },
    "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "x"}]}}, "output": [], "output_node": True},
}
DOCUMENT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def house(now):
    return factories.make_customer(now=now, slug="console")


def page(client, url, *, status=200, most=MOST_QUERIES):
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
        html = response.content.decode()
    assert response.status_code == status, html[:300]
    assert len(queries) <= most, [q["sql"][:120] for q in queries]
    assert len(html) < MOST_BYTES
    return html


def form(**values):
    """What a browser sends for the form of `rows.EXPOSED`."""
    sent = {"prompt": "a boat", "caption": "quiet", "width": "64", "sigma": "1.5", "mode": "fast", "tile": "on", "seed": ""} | values
    return {f"in_{name}": value for name, value in sent.items() if value is not None} | {"customer": "console", "version": "1"}


def library(now, **more):
    return libraries.store(name="test", document={**INFO, **more}, current=True, now=now)


# -- the list ---------------------------------------------------------------------------------------


def test_an_empty_list_offers_the_import_to_those_who_may():
    assert "No workflows yet" in page(signed_in("viewer"), "/ops/workflows/")
    assert 'href="/ops/workflows/import/"' not in signed_in("operator").get("/ops/workflows/").content.decode()
    assert 'href="/ops/workflows/import/"' in page(signed_in("release"), "/ops/workflows/")


def test_the_list_puts_the_failing_first_and_agrees_with_its_csv(now, house):
    good, bad = rows.workflow(now=now, slug="good"), rows.workflow(now=now, slug="bad")
    rows.workflow(now=now, slug="asleep")
    ago = now - timedelta(hours=1)
    for _ in range(3):
        rows.job(house, good, now=now, created=ago, status="succeeded")
    rows.job(house, bad, now=now, created=ago, status="failed")
    rows.job(house, bad, now=now, created=ago, status="succeeded")
    rollups.recompute(now=now, since=now - timedelta(hours=2))
    client = signed_in("admin")
    html = page(client, "/ops/workflows/")
    assert "1 of 3 workflows below 95% success" in html
    assert html.index("/workflows/bad/") < html.index("/workflows/good/")
    assert "no runs" in html
    exported = {line["slug"]: line for line in csv.DictReader(io.StringIO(b"".join(client.get("/ops/workflows/?format=csv").streaming_content).decode()))}
    assert (exported["bad"]["success_share_24h"], exported["bad"]["jobs_24h"], exported["good"]["success_share_24h"]) == ("0.5", "2", "1.0")
    assert exported["good"]["cost_per_job_usd"] == "0.0036"
    assert exported["good"]["margin_share"] == "0.7"
    assert exported["asleep"]["success_share_24h"] == ""


def test_a_filter_names_itself_when_nothing_matches(now):
    rows.workflow(now=now)
    html = page(signed_in("viewer"), "/ops/workflows/?q=zebra&category=video")
    assert "No workflows match" in html
    assert "zebra" in html
    assert "1 workflow is outside" in html


def test_many_workflows_cost_no_more_queries(now):
    pool = factories.make_pool(now=now)
    for n in range(60):
        factories.make_runnable(now=now, pool=pool, slug=f"w-{n}")
    page(signed_in("admin"), "/ops/workflows/")


def test_a_rate_below_the_target_never_reads_as_the_target():
    assert [rates.success(v) for v in (None, 1.0, 0.9949, 0.9499, 0.95, 0.5)] == ["none", "100%", "99.49%", "94.9%", "95.0%", "50%"]


# -- one workflow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_stands_for_every_role_and_without_any_version(now, tab):
    rows.workflow(now=now)
    factories.make_workflow(now=now, slug="bare")
    for granted in ((), ("operator",), ("admin",)):
        page(signed_in(*granted), f"/ops/workflows/boat/{tab}")
    page(signed_in("release"), f"/ops/workflows/bare/{tab}")
    page(signed_in("release", "account"), f"/ops/workflows/none/{tab}", status=404)


def test_hostile_names_and_titles_are_escaped_on_every_tab(now, house):
    made = rows.workflow(now=now)
    Workflow.objects.update(name=rows.XSS[:120], description=rows.XSS, owner=rows.XSS[:80], category=rows.XSS[:40])
    finding = {"level": "error", "code": rows.XSS, "node": "2", "field": rows.XSS, "message": rows.XSS, "suggestion": rows.XSS}
    hostile = [{**rows.EXPOSED[0], "title": rows.XSS, "description": rows.XSS, "default": rows.XSS}, {**rows.EXPOSED[4], "enum": ["fast", rows.XSS]}]
    factories.make_version(made, now=now, graph=rows.GRAPH, inputs=hostile, message=rows.XSS, findings=[finding], runnable=False)
    client = signed_in("admin")
    for url in ("/ops/workflows/", *(f"/ops/workflows/boat/{tab}" for tab in TABS), "/ops/workflows/boat/?view=list"):
        html = page(client, url)
        assert "<script>alert" not in html, url
        assert "<img src=x" not in html, url
    code = client.post("/ops/workflows/boat/api/snippets/", form(prompt=rows.XSS, version="2")).json()
    assert "<script>" not in "".join(code.values())


def test_the_graph_shows_shares_inputs_and_what_is_missing(now, house):
    library(now)
    made = rows.workflow(now=now)
    job = rows.job(house, made, now=now, status="succeeded")
    html = page(signed_in("viewer"), "/ops/workflows/boat/")
    assert job.status == "succeeded"
    assert html.count('<g class="nd') == 3
    assert 'class="nd miss"' in html  # ImageBlur is not in the library
    assert "ImageBlur is not known to the current node library" in html
    assert "takes <b>83%</b> of run time" in html
    assert "API input prompt" in html
    assert html.count('role="img" aria-label="') >= 3
    assert "Node list" in html


def test_at_most_sixty_nodes_are_drawn(now):
    graph = {str(n): {"class_type": "EmptyImage", "inputs": {}} for n in range(80)}
    made = factories.make_workflow(now=now, slug="wide")
    version = factories.make_version(made, now=now, graph=graph, inputs=[])
    picture = graph_view.picture(version, times=NodeTimes({}, 0))
    assert (len(picture.nodes), picture.left_out) == (60, 20)
    assert "60 nodes of 80 drawn" in page(signed_in("viewer"), "/ops/workflows/wide/")


def test_the_graph_of_a_version_downloads_as_comfyui_reads_it(now):
    rows.workflow(now=now)
    response = signed_in("viewer").get("/ops/workflows/boat/versions/1/graph.json")
    assert json.loads(response.content) == rows.GRAPH
    assert response["Content-Disposition"] == 'attachment; filename="boat-v1.json"'
    assert signed_in("operator").get("/ops/workflows/boat/versions/9/graph.json").status_code == 404


# -- the form that runs a job ------------------------------------------------------------------------


def test_the_form_has_a_fitting_field_for_every_kind_of_input(now, house):
    rows.workflow(now=now, exposed=[*rows.EXPOSED, rows.PHOTO])
    html = page(signed_in("operator"), "/ops/workflows/boat/api/")
    for piece in (
        '<textarea class="input" id="f-in_prompt" name="in_prompt" rows="3" maxlength="600"',
        'name="in_caption" type="text" value="quiet"',
        'name="in_width" type="number" value="64" step="1" min="1" max="4096"',
        'name="in_sigma" type="number" value="1.0" step="any" min="0.1" max="10.0"',
        '<option value="fine">fine</option>',
        '<input type="checkbox" id="f-in_tile" name="in_tile" checked',
        'name="in_seed" type="number" value="" step="1" min="0" max="4294967296" placeholder="random"',
        'type="file" id="f-in_photo" name="in_photo" accept="image/png,image/jpeg,image/webp" required',
        "Empty is random",
    ):
        assert piece in html, piece


def test_a_sent_form_becomes_a_real_job_of_the_house_customer_and_comes_back_with_it(now, house):
    rows.workflow(now=now)
    client = signed_in("operator")
    response = client.post("/ops/workflows/boat/api/", form(width="128", tile=None))
    job = Job.objects.get()
    assert response["Location"] == f"/ops/workflows/boat/api/?job={job.id}&customer=console&v=1&drawn=seed#result"
    assert (job.customer, job.source, job.status, job.metadata) == (house, "console", "queued", {"run_by": "ops-operator"})
    given = dict(job.inputs)
    assert isinstance(given.pop("seed"), int)
    assert given == {"prompt": "a boat", "caption": "quiet", "width": 128, "sigma": 1.5, "mode": "fast", "tile": False}
    html = page(client, response["Location"].removesuffix("#result"))
    assert 'value="128"' in html
    assert 'name="in_seed" type="number" value=""' in html
    assert "Waiting" in html
    assert 'id="result-live" hx-get="/ops/workflows/boat/api/?job=' in html


def test_the_result_of_a_run_is_a_fragment_that_ends_its_polling(now, house):
    made = rows.workflow(now=now)
    job = rows.job(house, made, now=now, status="running")
    client = signed_in("operator")
    url = f"/ops/workflows/boat/api/?job={job.id}"
    running = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "data-live-fast" in running
    assert "<form" not in running
    Job.objects.filter(id=job.id).update(status="succeeded", finished_at=now, lease_until=None, price_microusd=1, progress=1)
    rows.output(job)
    done = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "data-live-done" in done
    assert "<img src=" in done
    assert "hx-get" not in page(client, url)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("width", text) for text in ("0", "12.5", "wide", "9" * 50)),
        *(("sigma", text) for text in ("nan", "1e999")),
        ("mode", "slow"),
        ("prompt", "x" * 601),
    ],
)
def test_a_wrong_value_is_said_at_its_field_and_everything_typed_stays(now, house, field, value):
    rows.workflow(now=now)
    response = signed_in("operator").post("/ops/workflows/boat/api/", form(**({"caption": "keep me"} | {field: value})))
    html = response.content.decode()
    assert response.status_code == 422
    assert not Job.objects.exists()
    assert "1 field needs a change" in html
    assert "keep me" in html
    assert re.search(rf'name="in_{field}"[^>]*aria-invalid="true" aria-describedby="f-in_{field}-h"', html)
    assert f'id="f-in_{field}-h"' in html
    assert not UsageEntry.objects.exists()


def test_an_uploaded_picture_is_kept_over_a_mistake_and_used(now, house):
    rows.workflow(now=now, exposed=[*rows.EXPOSED, rows.PHOTO])
    client = signed_in("operator")
    picture = SimpleUploadedFile("cat.png", rows.png().read(), content_type="image/png")
    html = client.post("/ops/workflows/boat/api/", {**form(width="0"), "in_photo": picture}).content.decode()
    kept = CustomerFile.objects.get()
    assert f'name="file_photo" value="{kept.id}"' in html
    assert "cat.png" in html
    client.post("/ops/workflows/boat/api/", {**form(), "file_photo": str(kept.id)})
    assert Job.objects.get().inputs["photo"] == str(kept.id)


@pytest.mark.parametrize("body", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken", b"<svg onload=alert(1)>"])
def test_a_file_that_is_no_picture_is_refused_at_its_field(now, house, body):
    rows.workflow(now=now, exposed=[rows.PHOTO])
    upload = SimpleUploadedFile("x.png", body, content_type="image/png")
    response = signed_in("operator").post("/ops/workflows/boat/api/", {"customer": "console", "version": "1", "in_photo": upload})
    assert response.status_code == 422
    assert 'class="err"' in response.content.decode()
    assert not Job.objects.exists()


def test_somebody_elses_file_cannot_be_named(now, house):
    rows.workflow(now=now, exposed=[rows.PHOTO])
    foreign, _ = input_files.keep(rows.png(), name="theirs.png", customer=factories.make_customer(now=now), now=now)
    response = signed_in("operator").post("/ops/workflows/boat/api/", {"customer": "console", "version": "1", "file_photo": str(foreign.id)})
    assert response.status_code == 422
    assert "theirs.png" not in response.content.decode()


def test_running_needs_the_role_and_a_form_sent_twice_runs_once(now, house):
    rows.workflow(now=now)
    assert signed_in("viewer").post("/ops/workflows/boat/api/", form()).status_code == 403
    client = signed_in("operator")
    for _ in range(2):
        client.post("/ops/workflows/boat/api/", {**form(), "once": "same"})
    assert Job.objects.count() == 1


def test_without_a_customer_the_form_says_so(now):
    rows.workflow(now=now)
    client = signed_in("operator")
    assert "Create one under Customers" in page(client, "/ops/workflows/boat/api/")
    assert client.post("/ops/workflows/boat/api/", form()).status_code == 422


def test_snippets_follow_the_form_and_hold_every_language(now, house):
    rows.workflow(now=now, exposed=[*rows.EXPOSED, rows.PHOTO])
    code = signed_in("viewer").post("/ops/workflows/boat/api/snippets/", form(prompt="it's $(rm -rf) `x`", width="77")).json()
    assert set(code) == {"curl", "python", "typescript"}
    assert all("77" in text for text in code.values())


def test_snippet_values_survive_their_languages():
    nasty = {"prompt": 'it\'s "$(rm)" `x` \\ \n end', "n": 3, "f": 0.5, "on": True}
    made = snippets.all_of(base_url="http://h/", slug="boat", values=nasty, files={})
    body = made["curl"].split(" -d ", 1)[1]
    assert json.loads(shlex.split(body)[0]) == {"inputs": nasty}
    compile(made["python"], "snippet", "exec")
    literal = made["python"].split("json=", 1)[1].split(",\n", 1)[0]
    assert ast.literal_eval(literal) == {"inputs": nasty}
    assert json.loads(made["typescript"].split("JSON.stringify(", 1)[1].split(");", 1)[0]) == {"inputs": nasty}
    with_files = snippets.all_of(base_url="http://h", slug="boat", values=nasty, files={"photo": "my cat's.png"})
    compile(with_files["python"], "snippet", "exec")
    assert "photo=@my cat's.png" in shlex.split(with_files["curl"].replace("\\\n", " "))


def test_an_unreleased_workflow_says_what_is_left_and_the_first_job_starts_at_its_form(now, house):
    made = rows.workflow(now=now)
    Channel.objects.filter(workflow=made).delete()
    client = signed_in("admin")
    assert "Customers cannot call it yet" in page(client, "/ops/workflows/boat/")
    assert client.get("/ops/").context["steps"][-1]["href"] == "/ops/workflows/boat/api/"
    Channel.objects.create(workflow=made, name="production", version=made.versions.get(), moved_at=now, moved_by="x")
    assert "Customers cannot call it yet" not in page(client, "/ops/workflows/boat/")


def test_a_colour_is_chosen_as_one_and_stays_the_number_that_is_sent(now, house):
    exposed = [
        {
            "name": "sky",
            "node": "1",
            "input": "color",
            "type": "integer",
            "minimum": 0,
            "maximum": 0xFFFFFF,
            "default": 1780315,
            "description": "The sky. A number.",
        },
        {"name": "count", "node": "1", "input": "batch_size", "type": "integer", "minimum": 0, "maximum": 0xFFFFFF, "default": 1},
    ]
    rows.workflow(now=now, exposed=exposed)
    text = page(signed_in("operator"), "/ops/workflows/boat/api/")
    assert text.count('type="color"') == 1
    assert 'value="#1b2a5b" aria-label="Choose sky" data-colour-of="f-in_sky"' in text
    assert re.search(r'<input class="input" id="f-in_sky" name="in_sky" type="number" value="1780315"', text)
    assert '<span class="hint">The sky</span>' in text
    assert [run_form.swatch(v) for v in (0, 16777215, "255", "", "x", 2**40, -1)] == ["#000000", "#ffffff", "#0000ff", *["#000000"] * 4]


def test_the_examples_are_what_the_api_really_answers(now, house):
    made = rows.workflow(now=now)
    text = page(signed_in("operator"), "/ops/workflows/boat/api/")
    shown = [html_text(part) for part in re.findall(r'aria-label="(?:Response|Error) example">(.*?)</pre>', text, re.DOTALL)]
    accepted, refused = (json.loads(one.partition("\n")[2]) for one in shown)
    job = Job(workflow=made, version=made.versions.get(), created_at=now, inputs={}, metadata={}, quote_microusd=1)
    assert list(accepted) == list(presenting.job(job))
    assert list(refused["error"]) == ["code", "message", "suggestion", "alternative_endpoint", "details", "request_id"]
    with pytest.raises(Invalid) as real:
        inputs.validate(made.versions.get(), {refused["error"]["details"]["field"]: 10**9})
    assert refused["error"]["code"] == real.value.code


def html_text(markup):
    return html.unescape(re.sub(r"<[^>]+>", "", markup))


def test_highlighting_escapes_everything_it_marks():
    html = snippets.highlight("# <b>\ncurl \"<script>\" '<i>' 12 <u>")
    assert "<script>" not in html
    assert "<b>" not in html
    assert "<u>" not in html
    assert '<span class="n">12</span>' in html


# -- versions and settings ----------------------------------------------------------------------------


def test_moving_a_channel_needs_the_role_and_is_written_down(now):
    made = rows.workflow(now=now)
    factories.make_version(made, now=now, live=False)
    viewer, release = signed_in("operator"), signed_in("release")
    assert viewer.post("/ops/workflows/boat/promote/", {"channel": "production", "version": "2"}).status_code == 403
    html = release.post("/ops/workflows/boat/promote/", {"channel": "production", "version": "2"}, follow=True).content.decode()
    assert "Production now runs v2" in html
    assert Channel.objects.get(workflow=made, name="production").version.number == 2
    assert AuditEntry.objects.get(action="channel.promote").actor == "ops-release"


@pytest.mark.parametrize(("channel", "version"), [("production", "99"), ("moon", "1"), ("", ""), ("production", "3")])
def test_a_channel_does_not_move_to_what_cannot_run_or_is_not_there(now, channel, version):
    made = rows.workflow(now=now)
    factories.make_version(made, now=now, live=False)
    factories.make_version(
        made, now=now, live=False, runnable=False, findings=[{"level": "error", "code": "x", "node": "1", "field": "", "message": "m", "suggestion": "s"}]
    )
    signed_in("release").post("/ops/workflows/boat/promote/", {"channel": channel, "version": version}, follow=True)
    assert Channel.objects.get(workflow=made).version.number == 1


def test_settings_are_kept_with_what_they_were_before(now):
    rows.workflow(now=now)
    sent = {"name": "Boats", "description": "Draws boats.", "category": "Image", "result_cache_s": "60"}
    assert signed_in("operator").post("/ops/workflows/boat/settings/", sent).status_code == 403
    assert signed_in("release").post("/ops/workflows/boat/settings/", sent).status_code == 302
    made = Workflow.objects.get()
    assert (made.name, made.description, made.category, made.result_cache_s) == ("Boats", "Draws boats.", "image", 60)
    entry = AuditEntry.objects.get(action="workflow.edit")
    assert (entry.before["name"], entry.after["result_cache_s"], "category" in entry.after) == ("boat", 60, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "n" * 121},
        {"description": "d" * 501},
        {"category": "two words"},
        *({"result_cache_s": text} for text in ("-1", "soon", "9" * 30)),
    ],
)
def test_a_wrong_setting_is_said_at_its_field_and_changes_nothing(now, wrong):
    rows.workflow(now=now)
    response = signed_in("release").post(
        "/ops/workflows/boat/settings/", {"name": "Kept", "description": "", "category": "image", "result_cache_s": "0"} | wrong
    )
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.content.decode()
    assert Workflow.objects.get().name == "boat"


# -- import -------------------------------------------------------------------------------------------


def test_looking_first_keeps_nothing_and_shows_what_could_be_set(now):
    library(now)
    client = signed_in("release")
    html = client.post("/ops/workflows/import/", {"do": "look", "document": json.dumps(DOCUMENT), "name": "Fresh"}).content.decode()
    assert "What customers could set" in html
    assert "Can run" in html
    assert "1 to 4096" in html
    assert not Workflow.objects.exists()


def test_a_file_becomes_a_workflow_and_leads_to_it(now):
    library(now)
    client = signed_in("release")
    upload = SimpleUploadedFile("w.json", json.dumps(DOCUMENT).encode(), content_type="application/json")
    response = client.post("/ops/workflows/import/", {"do": "keep", "file": upload, "name": "Fresh start", "message": "First"})
    assert response["Location"] == "/ops/workflows/fresh-start/"
    version = Version.objects.get()
    assert (version.message, version.author, version.runnable) == ("First", "ops-release", True)
    assert "Kept as v1" in client.get(response["Location"]).content.decode()


def test_an_import_with_errors_names_node_and_fix_and_is_kept_only_as_a_draft(now):
    library(now)
    client = signed_in("release")
    broken = {
        **DOCUMENT,
        "9": {"class_type": "NoSuchNode", "inputs": {}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "y"}},
    }
    sent = {"do": "keep", "document": json.dumps(broken), "name": "Broken"}
    response = client.post("/ops/workflows/import/", sent)
    html = response.content.decode()
    assert response.status_code == 422
    assert "NoSuchNode" in html
    assert "node 9" in html
    assert "Keep as draft" in html
    assert json.dumps(broken)[:20].replace('"', "&quot;") in html
    assert not Workflow.objects.exists()
    assert client.post("/ops/workflows/import/", {**sent, "draft": "on"}).status_code == 302
    assert not Version.objects.get().runnable
    assert "cannot run" in page(client, "/ops/workflows/broken/")


@pytest.mark.parametrize(
    "document",
    [
        *("", "{", "[]", "null", "3", '"x"', "{}", '{"a": 1}', '{"nodes": [], "links": []}', "[" * 3000, "\x00"),
        '{"1": {"class_type": "EmptyImage", "inputs": {"width": 1e999}}}',
    ],
)
def test_what_is_no_workflow_is_refused_in_words(document):
    response = signed_in("release").post("/ops/workflows/import/", {"do": "keep", "document": document, "name": "X"})
    assert 400 <= response.status_code < 500
    assert 'role="alert"' in response.content.decode()


def test_a_file_too_large_or_not_text_is_refused_in_words():
    client = signed_in("release")
    for body in (b" " * 4_000_001, b"\xff\xfe\x00", b"\x89PNG"):
        upload = SimpleUploadedFile("w.json", body, content_type="application/json")
        response = client.post("/ops/workflows/import/", {"do": "keep", "file": upload, "name": "X"})
        assert response.status_code in (413, 422)
        assert 'role="alert"' in response.content.decode()


def test_importing_needs_the_release_role():
    assert signed_in("operator").get("/ops/workflows/import/").status_code == 403
