"""The operators' API of locks: made, read, exported, imported, refused; the resolver and the mirrors are real and small."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import factories
import lock_world
import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from builds.models import Lock, NodeLibrary, Version
from controlplane.kernel.models import AuditEntry
from tests.staff import login

pytestmark = pytest.mark.django_db
CLASSES = {
    "EmptyImage": {"input": {"required": {}}, "output": ["IMAGE"], "python_module": "nodes"},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True, "python_module": "nodes"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lock_world.World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def built(world: Any, settings: Any) -> Any:
    """Settings that point at the little world."""
    settings.BUILD = world.settings(settings.BUILD)
    NodeLibrary.objects.create(name="small", comfyui_version="0.3.64", sha256="0" * 64, object_info=CLASSES, current=True, created_at=timezone.now())
    return world


@pytest.fixture
def version() -> Version:
    return factories.make_version(factories.make_workflow(now=timezone.now(), slug="locked"), now=timezone.now())


def send(client: Client, body: Any, headers: dict[str, str], path: str = "/ops/api/workflows/locked/lock") -> Any:
    return client.post(path, data=json.dumps(body), content_type="application/json", headers=headers)


def test_a_lock_is_made_once_and_read_back(client: Client, built: Any, version: Version) -> None:
    headers = login("release")
    assert client.get("/ops/api/workflows/locked/lock", headers=headers).json()["error"]["code"] == "not_locked"
    made = send(client, {"reason": "first"}, headers)
    assert made.status_code == 201, made.content
    said = made.json()
    assert said["document"]["comfyui"]["commit"] == built.comfyui_commit and said["document"]["classes"] == ["EmptyImage", "SaveImage"]
    assert {one["name"] for one in said["document"]["python_packages"] if "agent" in one["asked_by"]} == {"yarl"}
    again = send(client, {}, headers)
    assert again.status_code == 200 and again.json()["lock"] == said["lock"] and again.json()["changed"] is False
    read = client.get("/ops/api/workflows/locked/lock?version=1", headers=headers).json()
    assert read["lock"] == said["lock"] and read["made_by"] == "ops-release"
    assert Lock.objects.count() == 1
    assert AuditEntry.objects.get(action="lock.make").reason == "first"


def test_a_check_keeps_nothing_and_says_what_would_change(client: Client, built: Any, version: Version) -> None:
    headers = login("release")
    send(client, {}, headers)
    checked = send(client, {"check": True, "constraints": ["numpy<2"]}, headers)
    assert checked.status_code == 200 and checked.json()["changed"] is True
    assert any("numpy 2.3.3 → 1.26.4" in line for line in checked.json()["changes"])
    assert Lock.objects.count() == 1


@pytest.mark.parametrize(
    "body", [{"version": 9}, {"constraints": "numpy<2"}, {"constraints": ["numpy <<< 2"]}, {"comfyui": "--x"}, {"unknown": 1}, {"upgrade": "yes"}]
)
def test_bad_wishes_are_refused_with_a_reason(client: Client, built: Any, version: Version, body: dict[str, Any]) -> None:
    answer = send(client, body, login("release"))
    assert answer.status_code in (400, 404, 422), answer.content
    assert answer.json()["error"]["message"]
    assert not Lock.objects.exists()


def test_a_viewer_reads_but_does_not_make(client: Client, built: Any, version: Version) -> None:
    assert send(client, {}, login("viewer")).status_code == 403
    assert send(client, {}, {}).status_code == 401


def test_every_format_is_downloaded_and_comes_back_as_the_same_lock(client: Client, built: Any, version: Version) -> None:
    headers = login("release")
    lock = send(client, {}, headers).json()["lock"]
    for name in ("comfyplane", "manager", "comfy-pack", "comfy-pack-1", "comfy-lock", "comfy-build", "cpack"):
        answer = client.get(f"/ops/api/workflows/locked/lock?format={name}", headers=headers)
        assert answer.status_code == 200 and "attachment" in answer["Content-Disposition"], name
        back = client.post("/ops/api/workflows/locked/lock/import?check=1", data=answer.content, content_type="application/octet-stream", headers=headers)
        assert back.status_code == 200, (name, back.content)
        assert back.json()["document"]["comfyui"]["commit"] == built.comfyui_commit
        if name == "comfyplane":
            assert back.json()["lock"] == lock
    assert yaml.safe_load(client.get("/ops/api/workflows/locked/lock?format=comfy-build", headers=headers).content)["schema"] == "comfy-build/1"
    packed = client.get("/ops/api/workflows/locked/lock?format=cpack", headers=headers).content
    assert "workflow_api.json" in zipfile.ZipFile(io.BytesIO(packed)).namelist()
    assert client.get("/ops/api/workflows/locked/lock?format=unknown", headers=headers).status_code == 404


def test_an_imported_snapshot_decides_commit_and_pins(client: Client, built: Any, version: Version) -> None:
    headers = login("release")
    newer = built.comfyui.commit(
        {"requirements.txt": "torch\nnumpy\n", "pyproject.toml": '[project]\nname = "ComfyUI"\nversion = "0.3.65"\n'}, branch="newer", at=lock_world.AT + 500
    )
    snapshot = {"comfyui": newer, "git_custom_nodes": {}, "cnr_custom_nodes": {"unneeded": "1.0.0"}, "pips": {"numpy==1.26.4": "", "torch==2.7.0+cu126": ""}}
    answer = client.post(
        "/ops/api/workflows/locked/lock/import", data=json.dumps(snapshot).encode(), content_type="application/octet-stream", headers=headers
    )  # fmt: skip
    assert answer.status_code == 201, answer.content
    said = answer.json()
    assert said["document"]["comfyui"]["commit"] == newer
    versions = {one["name"]: one["version"] for one in said["document"]["python_packages"]}
    assert (versions["numpy"], versions["torch"]) == ("1.26.4", "2.8.0")
    assert {"packs_not_needed", "pins_of_the_machine"} <= {one["code"] for one in said["findings"]}


@pytest.mark.parametrize("data", [b"", b"{", b"\x00\x01", b'{"hello": 1}', b"a: &a 1\nb: *a\n", b"PK\x03\x04x"])
def test_a_file_that_is_no_lock_ends_in_a_reason(client: Client, built: Any, version: Version, data: bytes) -> None:
    answer = client.post("/ops/api/workflows/locked/lock/import", data=data, content_type="application/octet-stream", headers=login("release"))
    assert answer.status_code in (400, 413, 422) and answer.json()["error"]["message"]
    assert not Lock.objects.exists()


def test_the_command_prints_checks_and_refuses(built: Any, version: Version, tmp_path: Path) -> None:
    out = io.StringIO()
    call_command("lock", "locked@1", "--json", "--output", str(tmp_path / "lock.json"), stdout=out)
    said = json.loads(out.getvalue())
    assert json.loads((tmp_path / "lock.json").read_text()) == said["document"]
    out = io.StringIO()
    call_command("lock", "locked", "--check", stdout=out)
    assert said["lock"] in out.getvalue()
    with pytest.raises(SystemExit) as stale:
        call_command("lock", "locked", "--check", "--constraint", "numpy<2", stdout=io.StringIO())
    assert stale.value.code == 1
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as refused:
        call_command("lock", "locked@7", stdout=out, stderr=err)
    assert refused.value.code == 2 and json.loads(out.getvalue())["error"]["code"] == "unknown_version" and "unknown_version" in err.getvalue()


def test_locks_are_exported_and_imported_by_command(built: Any, version: Version, tmp_path: Path) -> None:
    call_command("lock", "locked", stdout=io.StringIO())
    out, err = io.StringIO(), io.StringIO()
    call_command("export_lock", "locked", "--format", "manager", stdout=out, stderr=err)
    assert json.loads(out.getvalue())["comfyui"] == built.comfyui_commit and "format_cannot_hold" in err.getvalue()
    path = tmp_path / "snapshot.json"
    path.write_text(out.getvalue())
    out = io.StringIO()
    call_command("import_lock", str(path), stdout=out)
    assert json.loads(out.getvalue())["format"] == "manager"
    out = io.StringIO()
    call_command("import_lock", str(path), "--workflow", "locked", "--json", stdout=out)
    assert json.loads(out.getvalue())["document"]["comfyui"]["commit"] == built.comfyui_commit
    with pytest.raises(SystemExit) as refused:
        call_command("import_lock", str(tmp_path / "nothing"), stdout=io.StringIO(), stderr=io.StringIO())
    assert refused.value.code == 2
