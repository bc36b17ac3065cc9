"""The dependencies of a workflow on its page and for scripts: what is needed, what is open, and choosing with a reason."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

import factories
import pytest
from django.test import Client

from builds import importing, libraries
from builds.dependencies import importing as list_importing
from builds.dependencies import lists, pins
from builds.models import KnownModel, Pin, Version, Workflow
from controlplane.kernel.models import AuditEntry
from tests.staff import signed_in

pytestmark = pytest.mark.django_db

EVIL = "<script>alert(1)</script>.safetensors"
NODE_MAP = {
    "https://github.com/comfyanonymous/ComfyUI": [["KSampler"], {}],
    "https://github.com/alpha/ComfyUI-Alpha": [["AlphaOne", "Shared"], {"title_aux": "Alpha <b>nodes</b>"}],
    "https://github.com/beta/comfyui-beta": [["Shared"], {"title_aux": "Beta nodes"}],
}
INFO: dict[str, Any] = {
    "EmptyImage": {"input": {"required": {}}, "output": ["IMAGE"], "python_module": "nodes"},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING"]}}, "output": [], "output_node": True, "python_module": "nodes"},
    "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["known.safetensors"]]}}, "output": ["MODEL", "CLIP", "VAE"], "python_module": "nodes"},
}
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "Shared", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": EVIL}},
    "4": {"class_type": "Nobody", "inputs": {}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def version(now: datetime) -> Version:
    libraries.store(name="ComfyUI 9", document=INFO, comfyui_version="9", current=True, now=now)
    list_importing.keep(lists.read({"extension-node-map.json": json.dumps(NODE_MAP).encode()}), source="test", actor="test", now=now)
    return importing.import_graph(document=GRAPH, slug="made", author="ada", draft=True, now=now).version


def page(client: Client, path: str = "/ops/workflows/made/dependencies/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def token(html: str, action: str) -> str:
    form = html[html.index(f'action="{action}"') :]
    start = form.index('name="once" value="') + len('name="once" value="')
    return form[start : form.index('"', start)]


def send(client: Client, what: str, **fields: str) -> str:
    action = f"/ops/workflows/made/dependencies/{what}/"
    answer = client.post(action, {"once": token(page(client), action), **fields}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_tab_says_what_is_open_and_escapes_what_strangers_wrote(version: Version) -> None:
    html = page(signed_in("release"))
    assert "2 node classes to decide, 1 model without a known source" in html
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html
    assert "<b>nodes</b>" not in html and "Alpha &lt;b&gt;nodes" in html
    assert 'name="pack:Shared"' in html and 'name="pack:Nobody"' in html


def test_a_choice_with_its_reason_is_kept_and_decides(version: Version) -> None:
    client = signed_in("release")
    html = send(client, "choose", **{"pack:Shared": "https://github.com/beta/comfyui-beta", "reason": "its readme shows this node", "reach": "workflow"})
    assert "Kept: Shared is pinned." in html
    pin = Pin.objects.get()
    assert (pin.class_name, pin.pack.slug, pin.workflow, pin.reason, pin.author) == (
        "Shared",
        "comfyui-beta",
        version.workflow,
        "its readme shows this node",
        "ops-release",
    )
    assert "1 node class to decide" in html
    entry = AuditEntry.objects.get(action="pin.set")
    assert (entry.actor, entry.reason) == ("ops-release", "its readme shows this node")


def test_a_choice_without_a_reason_or_of_nothing_is_refused(version: Version) -> None:
    client = signed_in("release")
    assert "A pin needs its reason." in send(client, "choose", **{"pack:Shared": "https://github.com/beta/comfyui-beta", "reason": "  "})
    assert "No pack was chosen." in send(client, "choose", reason="because")
    assert not Pin.objects.exists()


def test_a_pin_for_all_is_taken_back_and_told(version: Version, now: datetime) -> None:
    pins.place(class_name="Shared", pack="beta/comfyui-beta", reason="tested", actor="ada", now=now)
    client = signed_in("release")
    assert "all workflows: tested" in " ".join(page(client).split())
    assert "Shared is no longer pinned." in send(client, "unpin", **{"class": "Shared", "reach": "all"})
    assert not Pin.objects.exists()


def test_what_a_person_knows_of_a_model_closes_its_finding(version: Version) -> None:
    client = signed_in("release")
    facts = {
        "filename": EVIL,
        "directory": "checkpoints",
        "url": "https://models.example.com/x.safetensors",
        "sha256": "a" * 64,
        "licence": "apache-2.0",
        "size_bytes": "1,024",
    }
    html = send(client, "describe", **facts)
    assert "without a known source" not in html
    row = KnownModel.objects.get()
    assert (row.size_bytes, row.sha256, row.licence) == (1024, "a" * 64, "apache-2.0")


@pytest.mark.parametrize(
    ("field", "value"), [("sha256", "zz"), ("url", "file:///etc/passwd"), ("directory", "../.."), ("filename", "../CON"), ("size_bytes", "much")]
)
def test_facts_that_cannot_be_are_refused(version: Version, field: str, value: str) -> None:
    client = signed_in("release")
    send(client, "describe", **{"filename": "a.safetensors", "directory": "loras", field: value})
    assert not KnownModel.objects.exists()


def test_the_models_come_as_csv_too(version: Version) -> None:
    client = signed_in()
    answer = client.get("/ops/workflows/made/dependencies/?format=csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))  # type: ignore[attr-defined]
    assert [(row["name"], row["directory"], row["status"], row["node"]) for row in rows] == [(EVIL, "checkpoints", "unknown", "3")]


def test_whoever_may_not_release_sees_everything_and_chooses_nothing(version: Version) -> None:
    client = signed_in("operator")
    assert "To decide" in page(client)
    for what in ("choose", "unpin", "describe"):
        assert client.post(f"/ops/workflows/made/dependencies/{what}/", {"pack:Shared": "x", "reason": "y"}).status_code == 403
    assert Client().get("/ops/workflows/made/dependencies/").status_code == 302
    assert not Pin.objects.exists()


def test_a_workflow_without_a_version_says_so(now: datetime) -> None:
    factories.make_workflow(now=now, slug="made")
    assert "No version yet" in page(signed_in())


def test_an_unknown_version_is_not_found(version: Version) -> None:
    assert signed_in().get("/ops/workflows/made/dependencies/?v=99").status_code == 404


def call(client: Client, method: str, path: str, body: Any = None) -> Any:
    return client.generic(method, f"/ops/api/{path}", data=json.dumps(body) if body is not None else "", content_type="application/json")


def test_scripts_read_the_report_and_pin(version: Version) -> None:
    client = signed_in("release")
    said = call(client, "GET", "workflows/made/dependencies").json()
    assert {one["class"]: one["status"] for one in said["classes"]} == {
        **{"EmptyImage": "core", "Shared": "ambiguous", "CheckpointLoaderSimple": "core", "Nobody": "missing", "SaveImage": "core"},
    }
    answer = call(client, "POST", "workflows/made/pins", {"class": "Shared", "pack": "Alpha/ComfyUI-Alpha", "reason": "we use it", "version": "1.0.0"})
    assert answer.status_code == 201, answer.content
    assert call(client, "GET", "workflows/made/pins").json()["results"][0]["version"] == "1.0.0"
    packs = call(client, "GET", "workflows/made/dependencies").json()["packs"]
    assert [(one["repository"], one["version"], one["classes"]) for one in packs] == [("https://github.com/alpha/ComfyUI-Alpha", "1.0.0", ["Shared"])]
    assert call(client, "DELETE", "workflows/made/pins?class=Shared").status_code == 204
    assert call(client, "DELETE", "workflows/made/pins?class=Shared").status_code == 404


def test_scripts_ask_about_a_document_that_is_kept_nowhere(version: Version) -> None:
    said = call(signed_in(), "POST", "dependencies", {"nodes": [{"id": 1, "type": "AlphaOne"}], "links": []}).json()
    assert [one["classes"] for one in said["packs"]] == [["AlphaOne"]]
    assert Workflow.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"class": "X"},
        {"class": "X", "pack": "p", "reason": ""},
        {"class": 3, "pack": "p", "reason": "r"},
        {"class": "X", "pack": "\u0000", "reason": "r"},
        {"more": 1},
    ],
)
def test_a_pin_that_says_too_little_is_refused(version: Version, body: dict[str, Any]) -> None:
    assert call(signed_in("release"), "POST", "pins", body).status_code in (400, 422)
    assert not Pin.objects.exists()


def test_only_release_may_pin_by_script(version: Version) -> None:
    assert call(signed_in("operator"), "POST", "pins", {"class": "Shared", "pack": "alpha/ComfyUI-Alpha", "reason": "r"}).status_code == 403


def look(client: Client, document: Any, **fields: str) -> str:
    answer = client.post("/ops/workflows/import/", {"do": "look", "document": json.dumps(document), **fields})
    return answer.content.decode()


CANVAS: dict[str, Any] = {
    "nodes": [
        {"id": 1, "type": "AlphaOne", "widgets_values": []},
        {"id": 2, "type": "Shared", "widgets_values": []},
        {"id": 3, "type": "Note", "widgets_values": ["hi"]},
    ],
    "links": [],
}


def test_the_import_page_says_which_pack_brings_a_class_nobody_here_has(version: Version) -> None:
    html = look(signed_in("release"), CANVAS)
    assert "What it needs" in html and "1 node class to decide" in html
    assert "Install the pack Alpha &lt;b&gt;nodes&lt;/b&gt; (https://github.com/alpha/ComfyUI-Alpha)" in html
    assert 'form="import-form" name="pack:Shared"' in html
    assert Version.objects.count() == 1


def test_a_choice_on_the_import_page_is_kept_for_all_and_looked_at_again(version: Version) -> None:
    html = look(signed_in("release"), CANVAS, do="pin", **{"pack:Shared": "https://github.com/beta/comfyui-beta", "reason": "its readme"})
    assert "Kept: Shared is pinned." in html and "1 node class to decide" not in html
    assert Pin.objects.get().workflow is None


def test_a_pin_without_a_reason_keeps_the_report_in_sight(version: Version) -> None:
    html = look(signed_in("release"), CANVAS, do="pin", **{"pack:Shared": "https://github.com/beta/comfyui-beta"})
    assert "A pin needs its reason." in html and "1 node class to decide" in html


def test_an_api_graph_that_lacks_a_pack_names_it_in_its_finding(version: Version) -> None:
    html = look(signed_in("release"), {"1": {"class_type": "AlphaOne", "inputs": {}}})
    assert "No node class is called AlphaOne." in html and "Install the pack Alpha" in html


def test_what_is_no_workflow_at_all_has_no_report(version: Version) -> None:
    client = signed_in("release")
    for document in ("[]", "{}", '{"nodes": 3}', "not json", '{"nodes": [{"id": 1}], "links": []}'):
        answer = client.post("/ops/workflows/import/", {"do": "look", "document": document})
        assert 400 <= answer.status_code < 500
        assert "What it needs" not in answer.content.decode()


def test_operators_scripts_get_the_pack_in_the_refusal(version: Version) -> None:
    answer = call(signed_in("release"), "POST", "workflows", {"document": CANVAS, "slug": "x"})
    assert answer.status_code == 422
    problems = answer.json()["error"]["details"]["problems"]
    assert "Install the pack Alpha" in problems[0]["suggestion"]
