"""Commands, catalogue, drawing and admin of the registry."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st
from registry_samples import DATA, PROMPTS, object_info, prompt

from builds import catalogue, importing, layout, versions
from builds.graphs import parse
from builds.models import NodeLibrary, Version, Workflow

FILE = str(DATA / "prompts" / "01_scale_save.json")


def run(*args: str) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return out.getvalue()


def refused(*args: str) -> dict[str, Any]:
    """The error a command exits with; its sentence is on standard error too."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as left:
        call_command(*args, stdout=out, stderr=err)
    error: dict[str, Any] = json.loads(out.getvalue())["error"]
    assert left.value.code == 2
    assert error["code"] in err.getvalue()
    return error


@pytest.fixture
def library(db: None) -> None:
    run("import_object_info", str(DATA / "object_info.json.gz"), "--name", "ComfyUI 0.8.0", "--comfyui-version", "0.8.0", "--current")


@pytest.mark.usefixtures("library")
class TestImportCommand:
    def test_a_file_becomes_a_version_and_its_slug_is_the_files_name(self) -> None:
        said = json.loads(run("import_workflow", FILE, "--json", "--promote", "production"))
        assert (said["workflow"], said["version"], said["created"], said["runnable"], said["promoted"]) == ("01-scale-save", 1, True, True, "production")
        assert json.loads(run("import_workflow", FILE, "--json"))["created"] is False

    def test_inputs_and_names_are_taken_from_the_command_line(self) -> None:
        run(
            "import_workflow",
            FILE,
            "--slug",
            "scale",
            "--name",
            "Scale it",
            "--expose",
            "1.width=w",
            "--expose",
            "1.color",
            "--message",
            "first",
            "--author",
            "ann",
        )
        version = Version.objects.select_related("workflow").get()
        assert [one["name"] for one in version.inputs] == ["w", "color"]
        assert (version.workflow.name, version.message, version.author) == ("Scale it", "first", "ann")

    def test_a_faulty_graph_is_kept_as_a_draft_and_refused_when_strict(self) -> None:
        bad = str(DATA / "prompts" / "54_invalid_type_mismatch.json")
        assert refused("import_workflow", bad, "--strict")["code"] == "type_mismatch"
        assert not Workflow.objects.exists()
        assert "error   type_mismatch at 2.images" in run("import_workflow", bad)
        assert refused("import_workflow", bad, "--strict", "--json")["code"] == "type_mismatch"

    def test_a_dry_run_keeps_nothing(self) -> None:
        said = json.loads(run("import_workflow", FILE, "--dry-run", "--json"))
        assert (said["runnable"], said["nodes"], said["inputs"]) == (True, 3, ["width", "height", "batch_size"])
        assert "Nothing kept" in run("import_workflow", FILE, "--dry-run")
        assert not Workflow.objects.exists()

    def test_unreadable_files_are_refused_plainly(self, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_bytes(b"\xff{")
        unreadable, broken = "file_unreadable", "invalid_json"
        for name, code in ((str(tmp_path / "none.json"), unreadable), (str(tmp_path / "bad.json"), broken), (str(tmp_path), unreadable)):
            assert refused("import_workflow", name)["code"] == code


@pytest.mark.django_db
def test_object_info_is_fetched_from_a_running_server_and_its_password_is_not_kept() -> None:
    body = gzip.decompress((DATA / "object_info.json.gz").read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/object_info" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            run("import_object_info", f"http://me:secret@127.0.0.1:{port}", "--name", "live")
            assert refused("import_object_info", f"http://127.0.0.1:{port}/nope", "--name", "live")["code"] == "comfyui_unreachable"
        finally:
            server.shutdown()
            thread.join()
    kept = NodeLibrary.objects.get()
    assert len(kept.classes) == len(object_info())
    assert kept.source == f"http://127.0.0.1:{port}"
    assert refused("import_object_info", FILE, "--name", "wrong")["code"] == "not_object_info"
    assert refused("import_object_info", "none.json", "--name", "wrong")["code"] == "file_unreadable"


@pytest.mark.django_db
def test_the_catalogue_has_the_known_shape_and_invents_nothing(now: datetime, tmp_path: Path) -> None:
    result = importing.import_graph(document=prompt("04_upload_invert"), slug="invert", name="Invert", author="ann", library=object_info(), now=now)
    versions.promote(workflow=result.workflow, channel="production", version=result.version, actor="ann", now=now)
    (entry,) = json.loads(run("export_catalogue"))
    assert {"id", "name", "category", "endpoint", "performance", "capabilities", "status"} <= entry.keys()
    assert (entry["id"], entry["endpoint"], entry["status"], entry["category"]) == ("invert", "/v1/workflows/invert/jobs", "production", "image-to-image")
    assert {key: value for key, value in entry["performance"].items() if value} == {}
    assert {"speed", "quality", "cost_per_image_usd", "typical_time_seconds"} <= entry["performance"].keys()
    assert entry["capabilities"]["image_input"] is True
    (tmp_path / "m.json").write_text(json.dumps({"invert": {"p50_s": 3.14159, "success_rate": 0.99, "cost_per_job_usd": 0.0021, "jobs": 40}}))
    run("export_catalogue", "--measured", str(tmp_path / "m.json"), "--output", str(tmp_path / "out.json"))
    performance = json.loads((tmp_path / "out.json").read_text())[0]["performance"]
    assert (performance["speed"], performance["typical_time_seconds"], performance["success_rate"], performance["measured_jobs"]) == ("fast", 3.14, 0.99, 40)
    assert performance["cost_per_image_usd"] is None


def test_speed_labels_follow_the_measured_median() -> None:
    assert [catalogue.speed_of(seconds) for seconds in (0.1, 2.0, 2.1, 8.0, 25.0, 25.1)] == ["fastest", "fastest", "fast", "fast", "medium", "slow"]


@pytest.mark.django_db
def test_an_operators_capabilities_and_the_channel_decide_what_is_said(now: datetime) -> None:
    result = importing.import_graph(document=prompt("01_scale_save"), slug="a", author="ann", library=object_info(), now=now)
    result.workflow.capabilities = {"face_consistency": True, "tiling": True}
    result.workflow.quality = "highest"
    entry = catalogue.entry(result.workflow, result.version)
    assert entry["capabilities"]["face_consistency"] is True
    assert entry["capabilities"]["tiling"] is True
    assert (entry["status"], entry["performance"]["quality"]) == ("draft", "highest")
    versions.promote(workflow=result.workflow, channel="staging", version=result.version, actor="ann", now=now)
    assert catalogue.entry(result.workflow, result.version)["status"] == "staging"
    result.workflow.archived_at = now
    assert catalogue.entry(result.workflow, None)["status"] == "archived"


@pytest.mark.parametrize(
    ("name", "category"), [("07_animated_webp", "animation"), ("10_audio_flac", "audio"), ("05_text_ops", "text"), ("13_batch_of_four", "image")]
)
def test_a_category_is_guessed_from_the_outputs(name: str, category: str) -> None:
    assert catalogue.category_of(parse(prompt(name)), []) == category


def boxes_touch(a: layout.LayoutNode, b: layout.LayoutNode) -> bool:
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h - 0.2 and b.y < a.y + a.h - 0.2


def check_drawing(laid: layout.Layout) -> None:
    by_id = {one.id: one for one in laid.nodes}
    for index, one in enumerate(laid.nodes):
        assert one.x >= 0
        assert one.y >= 0
        assert one.x + one.w <= laid.width
        assert one.y + one.h <= laid.height + 0.2
        assert not any(boxes_touch(one, other) for other in laid.nodes[index + 1 :])
    for edge in laid.edges:
        assert by_id[edge.source].layer < by_id[edge.target].layer
        assert re.fullmatch(r"M[-\d.]+ [-\d.]+(C[-\d. ]+|H[-\d.]+)+", edge.path)


@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_is_drawn_left_to_right_without_overlap(name: str) -> None:
    graph = parse(prompt(name))
    laid = layout.layout(graph, library=object_info())
    check_drawing(laid)
    assert len(laid.nodes) == len(graph)


def test_wires_carry_their_data_type_and_boxes_their_most_telling_value() -> None:
    laid = layout.layout(parse(prompt("23_ksampler_tiny_model_previews")), library=object_info())
    assert {(edge.source, edge.target, edge.type) for edge in laid.edges if edge.target == "4"} == {
        ("1", "4", "MODEL"), ("2", "4", "CONDITIONING"), ("3", "4", "LATENT"),
    }  # fmt: skip
    values = {one.id: one.value for one in laid.nodes}
    assert values == {"1": "tiny_random_unet", "2": "", "3": "256 × 256", "4": "12 steps, euler", "5": "tiny_random_taesd", "6": "", "7": "sampled"}
    assert [one.id for one in laid.nodes if one.is_output] == ["7"]
    plain = layout.layout(parse(prompt("51_invalid_unknown_class")), library=object_info())
    assert {one.id: one.known for one in plain.nodes} == {"1": False, "2": True}
    assert {edge.type for edge in plain.edges} == {""}


def test_a_large_graph_is_cut_to_the_nodes_nearest_the_outputs() -> None:
    graph = parse({str(i): {"class_type": "ImageInvert" if i else "EmptyImage", "inputs": {"image": [str(i - 1), 0]} if i else {}} for i in range(200)})
    laid = layout.layout(graph, limit=60)
    check_drawing(laid)
    assert (len(laid.nodes), laid.left_out) == (60, 140)
    assert {one.id for one in laid.nodes} == {str(i) for i in range(140, 200)}
    assert layout.layout({}) == layout.Layout([], [], 32.0, 32.0, 0)


@given(st.integers(1, 25), st.sets(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=50))
def test_any_graph_is_drawn_without_overlap(size: int, pairs: set[tuple[int, int]]) -> None:
    graph: dict[str, dict[str, Any]] = {str(i): {"class_type": "A", "inputs": {"text": "x" * i}} for i in range(size)}
    for a, b in pairs:
        if a < b < size:
            graph[str(b)]["inputs"][f"i{a}"] = [str(a), 0]
    check_drawing(layout.layout(graph))


@pytest.mark.django_db
def test_admin_shows_versions_and_offers_no_way_to_change_them(admin_client: Any, now: datetime) -> None:
    document = prompt("04_upload_invert")
    document["10"]["_meta"] = {"title": "<script>alert(1)</script>"}
    version = importing.import_graph(document=document, slug="a", author="ann", library=object_info(), now=now).version
    versions.promote(workflow=version.workflow, channel="lab", version=version, actor="ann", now=now)
    for page in ("workflow", "version", "channel", "nodelibrary"):
        assert admin_client.get(f"/admin/builds/{page}/").status_code == 200
        assert admin_client.get(f"/admin/builds/{page}/add/").status_code == 403
    page = admin_client.get(f"/admin/builds/version/{version.pk}/change/")
    assert page.status_code == 200
    assert b"<script>alert(1)" not in page.content
    assert admin_client.post(f"/admin/builds/version/{version.pk}/change/", {"message": "x"}).status_code == 403
    assert admin_client.post(f"/admin/builds/version/{version.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get(f"/admin/builds/workflow/{version.workflow_id}/change/").status_code == 200
