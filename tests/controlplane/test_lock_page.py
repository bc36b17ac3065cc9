"""The page of a lock: its states, what it says of a conflict, what it takes and gives."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import factories
import lock_world
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from builds.locking import making
from builds.models import Lock, NodeLibrary, Version
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
CLASSES = {
    "EmptyImage": {"input": {"required": {}}, "output": ["IMAGE"], "python_module": "nodes"},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True, "python_module": "nodes"},
}
PAGE = "/ops/workflows/locked/lock/"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> lock_world.World:
    return lock_world.World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def built(world: lock_world.World, settings: Any) -> lock_world.World:
    settings.BUILD = world.settings(settings.BUILD)
    NodeLibrary.objects.create(name="small", comfyui_version="0.3.64", sha256="0" * 64, object_info=CLASSES, current=True, created_at=timezone.now())
    return world


@pytest.fixture
def version() -> Version:
    return factories.make_version(factories.make_workflow(now=timezone.now(), slug="locked"), now=timezone.now())


def test_a_workflow_without_version_and_one_without_lock_say_so(built: Any) -> None:
    client = signed_in("release")
    factories.make_workflow(now=timezone.now(), slug="empty")
    assert "No version yet" in client.get("/ops/workflows/empty/lock/").content.decode()
    factories.make_version(factories.make_workflow(now=timezone.now(), slug="locked"), now=timezone.now())
    page = client.get(PAGE).content.decode()
    assert "Not locked" in page and "Lock v1" in page and "Take it along" not in page
    assert client.get(f"{PAGE}?v=7").status_code == client.get(f"{PAGE}?v=x").status_code == 404
    assert client.get("/ops/workflows/locked/versions/1/lock/manager").status_code == 404


def test_a_lock_is_made_shown_and_taken_along(built: Any, version: Version) -> None:
    client = signed_in("release")
    assert client.post(f"{PAGE}?v=1", {"reason": "first"}).status_code == 302
    held = making.of(version)
    assert held is not None and held.made_by == "ops-release"
    page = client.get(PAGE).content.decode()
    assert held.lock_id in page and built.comfyui_commit[:12] in page and "0 packs, 7 Python packages, 0 models, 2 node classes" in page
    for name in ("comfyplane", "manager", "comfy-pack", "comfy-pack-1", "comfy-lock", "comfy-build", "cpack"):
        answer = client.get(f"/ops/workflows/locked/versions/1/lock/{name}")
        assert answer.status_code == 200 and "attachment" in answer["Content-Disposition"]
    assert client.get("/ops/workflows/locked/versions/1/lock/other").status_code == 404
    body = b"".join(client.get(f"{PAGE}?v=1&format=csv").streaming_content)  # type: ignore[arg-type]
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"))))
    assert {row["name"] for row in rows} == {one["name"] for one in held.lock.document["python_packages"]}


def test_a_conflict_shows_both_sides_and_keeps_what_was_typed(built: Any, version: Version) -> None:
    answer = signed_in("release").post(f"{PAGE}?v=1", {"constraints": "numpy<1.20\n", "reason": "try"})
    page = answer.content.decode()
    assert answer.status_code == 409 and not Lock.objects.exists()
    assert "requirements.txt:3" in page and "numpy&gt;=1.25.0" in page and "numpy&lt;1.20" in page and "A constraint" in page


def test_hostile_text_is_shown_as_text(built: Any, version: Version) -> None:
    client = signed_in("release")
    page = client.post(f"{PAGE}?v=1", {"constraints": "<script>alert(1)</script>"}).content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    snapshot = {"comfyui": "a" * 40, "git_custom_nodes": {"https://<img src=x>/a/b": {"hash": "b"}}}
    page = client.post(f"{PAGE}?v=1", {"file": SimpleUploadedFile("s.json", json.dumps(snapshot).encode())}).content.decode()
    assert "<img src=x>" not in page and "lock_file_malformed" in page


def test_a_lock_file_is_imported_from_the_page(built: Any, version: Version) -> None:
    snapshot = {"comfyui": built.comfyui_commit, "git_custom_nodes": {}, "cnr_custom_nodes": {}, "pips": {"numpy==1.26.4": ""}}
    client = signed_in("release")
    assert client.post(f"{PAGE}?v=1", {"file": SimpleUploadedFile("s.json", json.dumps(snapshot).encode()), "pins": "on"}).status_code == 302
    held = making.of(version)
    assert held is not None
    assert {one["name"]: one["version"] for one in held.lock.document["python_packages"]}["numpy"] == "1.26.4"
    assert "numpy==1.26.4" in held.lock.document["constraints"]


def test_a_viewer_sees_the_lock_and_cannot_make_one(built: Any, version: Version) -> None:
    viewer = signed_in("viewer")
    page = viewer.get(PAGE)
    assert page.status_code == 200 and b"<textarea" not in page.content
    assert viewer.post(f"{PAGE}?v=1", {}).status_code == 403
    assert Client().get(PAGE).status_code == 302
    assert not Lock.objects.exists()


def test_what_is_not_exact_stands_on_the_page(built: Any, version: Version, settings: Any) -> None:
    settings.BUILD = {**settings.BUILD, "BASE_IMAGE": "no-such-image:1", "DOCKER": "/nowhere/docker"}
    client = signed_in("release")
    client.post(f"{PAGE}?v=1", {})
    page = client.get(PAGE).content.decode()
    assert "Locked, not exact" in page and "base_image_unpinned" in page
