"""The lock page in a real Chromium: axe in both themes and widths, a conflict, and the whole of it without JavaScript."""

from __future__ import annotations

from dataclasses import replace

import factories
import lock_world
import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from builds.locking import making
from builds.models import NodeLibrary

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
INFO = {
    "EmptyImage": {"input": {"required": {}}, "output": ["IMAGE"], "python_module": "nodes"},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True, "python_module": "nodes"},
}
MODELS = [
    {"name": "<img src=x onerror=alert(1)" + "long" * 40 + ".safetensors", "directory": "loras", "url": "", "sha256": "", "size_bytes": None},
    {"name": "base.safetensors", "directory": "checkpoints", "url": "https://models.example.org/" + "a" * 150, "sha256": "8" * 64, "size_bytes": 6_938_078_334},
]


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory):
    return lock_world.World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def locked(mirrors, settings):
    """v1 is locked with packs and models, one with a hostile name; v2 is not locked."""
    settings.BUILD = mirrors.settings(settings.BUILD) | {"BASE_IMAGE": "debian:bookworm-slim@sha256:" + "b" * 64}
    now = timezone.now()
    NodeLibrary.objects.create(name="small", comfyui_version="0.3.64", sha256="0" * 64, object_info=INFO, current=True, created_at=now)
    version = factories.make_version(factories.make_workflow(now=now, slug="locked"), now=now)
    packs = [
        lock_world.pack(lock_world.FRAMES, mirrors.frames_commit, classes=[f"Frame{number}" for number in range(9)]),
        lock_world.pack(lock_world.TONES, mirrors.tones_commit, classes=["Tone" + "Curve" * 30]),
    ]
    hostile = [MODELS[0] | {"name": MODELS[0]["name"].replace("<", "‹")}, MODELS[1]]  # a lock refuses the other spelling
    report = lock_world.report(*packs, models=hostile)
    made = making.prepare(version=version, sources=mirrors.sources, target=mirrors.target, report=report)
    making.keep(version=version, prepared=replace(made, findings=[*made.findings, *_hostile_findings()]), actor="ada", now=now)
    factories.make_version(version.workflow, now=now, graph={**factories.GRAPH, "9": {"class_type": "EmptyImage", "inputs": {}}}, live=False)
    return version


def _hostile_findings():
    return [{"level": "warning", "code": "told", "node": "", "field": "", "message": "<script>alert(1)</script>" + "x" * 200, "suggestion": "<b>no</b>"}]


def open_page(chromium, live_server, path, *, width=1440, theme="light", scripts=True):
    client = Client()
    client.force_login(User.objects.get_or_create(username="root", defaults={"is_staff": True, "is_superuser": True})[0])
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
    page.goto(f"{live_server.url}/ops/workflows/locked/lock/{path}")
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_and_nothing_sticks_out(chromium, live_server, locked, theme, width):
    page = open_page(chromium, live_server, "?v=1", width=width, theme=theme)
    for step in ("locked", "refused"):
        if step == "refused":
            page.fill("#f-constraints", "numpy<1.20")
            with page.expect_navigation():
                page.click("text=Lock v1")
        for detail in page.query_selector_all("main details:not([open]) > summary"):
            detail.click()
        found = [(one["id"], one["nodes"][0]["html"][:200]) for one in Axe().run(page, options=RULES).response["violations"]]
        assert found == [], step
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, step
    assert "numpy<1.20" in page.inner_text("main") and page.complaints == []


def test_it_all_works_without_javascript(chromium, live_server, locked):
    page = open_page(chromium, live_server, "", scripts=False)
    assert "Not locked" in page.inner_text("main")
    with page.expect_navigation():
        page.click("text=Lock v2")
    assert making.of(locked.workflow.versions.get(number=2)).lock_id in page.inner_text("main")
    with page.expect_download() as taken:
        page.click("text=ComfyUI-Manager snapshot")
    assert taken.value.suggested_filename == "locked-v2-snapshot.json"
    page.select_option("#lock-v", "1")
    with page.expect_navigation():
        page.click("text=Show")
    assert "2 packs" in page.inner_text("main")
