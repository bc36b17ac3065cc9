"""Dependencies in a real Chromium: a dropped file is looked at, packs are chosen by keyboard, axe finds nothing, and it all works without JavaScript."""

from __future__ import annotations

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from builds import importing, libraries
from builds.dependencies import importing as list_importing
from builds.dependencies import lists
from builds.models import Pin

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
NODE_MAP = {
    "https://github.com/alpha/ComfyUI-Alpha-with-a-name-that-goes-on-and-on-for-a-hundred-characters": [["AlphaOne", "Shared"], {"title_aux": "Alpha nodes"}],
    "https://github.com/beta/comfyui-beta": [["Shared"], {"title_aux": "Beta nodes"}],
}
INFO = {
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True, "python_module": "nodes"},
    "LoraLoader": {"input": {"required": {"lora_name": [[]]}}, "output": ["MODEL"], "python_module": "nodes"},
}
GRAPH = {
    "1": {"class_type": "Shared", "inputs": {}},
    "2": {"class_type": "Nobody", "inputs": {}},
    "3": {"class_type": "LoraLoader", "inputs": {"lora_name": "<img src=x onerror=alert(1)>/" + "long" * 30 + ".safetensors"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
CANVAS = {"nodes": [{"id": 1, "type": "Shared"}, {"id": 2, "type": "AlphaOne"}], "links": []}
DROP = """(text) => { const all = new DataTransfer(); all.items.add(new File([text], "flow.json", { type: "application/json" })); return all; }"""


@pytest.fixture
def world():
    now = timezone.now()
    libraries.store(name="ComfyUI 9", document=INFO, comfyui_version="9", current=True, now=now)
    list_importing.keep(lists.read({"extension-node-map.json": json.dumps(NODE_MAP).encode()}), source="test", actor="test", now=now)
    return importing.import_graph(document=GRAPH, slug="made", author="ada", draft=True, now=now).version


def open_page(chromium, live_server, *, width=1440, theme="light", scripts=True):
    client = Client()
    client.force_login(User.objects.get_or_create(username="root", defaults={"is_staff": True, "is_superuser": True})[0])
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
    return page


def drop(page):
    """Let a file fall on the page, away from its field."""
    handle = page.evaluate_handle(DROP, json.dumps(CANVAS))
    for event in ("dragenter", "dragover"):
        page.dispatch_event("main", event, {"dataTransfer": handle})
    with page.expect_navigation():
        page.dispatch_event("main", "drop", {"dataTransfer": handle})


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_and_nothing_sticks_out(chromium, live_server, world, theme, width):
    page = open_page(chromium, live_server, width=width, theme=theme)
    found = {}
    page.goto(f"{live_server.url}/ops/workflows/made/dependencies/")
    for step in ("tab", "import"):
        if step == "import":
            page.goto(f"{live_server.url}/ops/workflows/import/")
            drop(page)
        for detail in page.query_selector_all("details:not([open]) > summary"):
            detail.click()
        found[step] = [(one["id"], one["nodes"][0]["html"][:200]) for one in Axe().run(page, options=RULES).response["violations"]]
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, step
    assert found == {"tab": [], "import": []}
    assert page.complaints == []


def test_a_dropped_file_is_looked_at_and_a_pack_is_chosen_there(chromium, live_server, world):
    page = open_page(chromium, live_server)
    page.goto(f"{live_server.url}/ops/workflows/import/")
    drop(page)
    assert "What it needs" in page.inner_text("main") and "1 node class to decide" in page.inner_text("main")
    page.get_by_role("radio", name="Beta nodes").check()
    page.get_by_label("Why").fill("its readme names the node")
    page.get_by_role("button", name="Keep the choice").click()
    page.wait_for_selector("text=Kept: Shared is pinned.")
    pin = Pin.objects.get()
    assert (pin.pack.slug, pin.reason, pin.workflow) == ("comfyui-beta", "its readme names the node", None)


def test_choosing_and_uploading_work_without_scripts(chromium, live_server, world, tmp_path):
    page = open_page(chromium, live_server, scripts=False)
    page.goto(f"{live_server.url}/ops/workflows/made/dependencies/")
    page.get_by_role("radio", name="Alpha nodes").check()
    page.get_by_label("Why").fill("tested")
    page.get_by_role("button", name="Keep the choice").click()
    assert Pin.objects.get().workflow == world.workflow
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(CANVAS))
    page.goto(f"{live_server.url}/ops/workflows/import/")
    page.set_input_files("input[type=file]", path)
    page.get_by_role("button", name="Look first").click()
    assert "What it needs" in page.inner_text("main")
