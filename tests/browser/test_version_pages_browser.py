"""The versions tab, the diff page and the merge page in a real Chromium: axe finds nothing in both themes and widths, and a merge goes through."""

from __future__ import annotations

import copy

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from django.utils import timezone

from builds import branches, importing
from builds.models import Branch, Version
from tests.controlplane import work_rows as rows
from tests.staff import member

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
PAGE = "/ops/workflows/boat"


def document(*, gone=False, **changes):
    """An API graph beside a canvas with a group, a colour and a subgraph; `gone` leaves out its blur."""
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 2, "sigma": 1.0}, "_meta": {"title": rows.XSS}},
        "7:1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["7:1", 0], "filename_prefix": "out"}},
    }
    for node, inputs in changes.items():
        graph[node.removeprefix("n")]["inputs"] |= inputs
    nodes = [
        {"id": node, "type": kind, "pos": [x, y], "size": [220, 120]}
        for node, kind, x, y in ((1, "EmptyImage", 0, 0), (2, "ImageBlur", 300, 60), (7, "u", 620, 0), (3, "SaveImage", 940, 40))
    ]
    nodes[0]["bgcolor"] = "#335533"
    if gone:
        del graph["2"]
        graph["7:1"]["inputs"]["image"] = ["1", 0]
        del nodes[1]
    inside = [{"id": 1, "type": "ImageInvert", "pos": [0, 0], "size": [200, 60]}]
    canvas = {"nodes": nodes, "links": [], "groups": [{"title": "Make", "bounding": [-20, -70, 580, 300], "color": "#3f789e"}]}
    return {"prompt": graph, "workflow": canvas | {"definitions": {"subgraphs": [{"id": "u", "name": "Turn", "nodes": inside}]}}}


def bring(made, **more):
    return importing.import_graph(document=copy.deepcopy(made), slug="boat", author="Ann", draft=True, library=None, now=timezone.now(), **more).version


@pytest.fixture
def boat():
    """main at v3, side at v2; both changed the width, one also took the blur out."""
    first = bring(document(), expose=["1.width", "1.height"], message="first")
    branches.create(workflow=first.workflow, name="side", actor="bob", now=timezone.now())
    bring(document(n1={"width": 32, "height": 9}), branch="side", message="smaller")
    bring(document(gone=True, n1={"width": 128}), message="wider, without the blur")
    return first.workflow


def open_page(chromium, live_server, user, *, width=1440, theme="light", scripts=True):
    """A page signed in as `user`; what the browser complains about is collected on it."""
    client = Client()
    client.force_login(user)
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}])
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.foreign = []
    page.on("request", lambda request: page.foreign.append(request.url) if not request.url.startswith((live_server.url, "data:", "blob:")) else None)
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_the_pages_of_versions(chromium, live_server, boat, width, theme):
    axe = Axe()
    page = open_page(chromium, live_server, member("admin"), width=width, theme=theme)
    paths = [
        "/versions/",
        "/versions/?branch=side",
        "/diff/?a=1&b=3",
        "/diff/?a=1&b=3&view=list",
        "/diff/?a=2&b=3",
        "/diff/?a=1&b=1",
        "/diff/?a=1&b=2&inside=7",
    ]
    paths += ["/merge/?from=side&into=main", "/merge/?from=main&into=main", "/?view=graph", "/?view=graph&inside=7"]
    found = []
    for path in paths:
        page.goto(live_server.url + PAGE + path)
        page.evaluate("document.querySelectorAll('details.branchform').forEach(one => { one.open = true })")
        found += [(path, v["id"], [n["html"][:160] for n in v["nodes"][:2]]) for v in axe.run(page, options=RULES).response["violations"]]
        too_wide = page.evaluate("document.documentElement.scrollWidth") - width
        if too_wide > 0:
            found.append((path, "scrolls sideways", too_wide))
    assert not found
    assert not page.complaints
    assert not page.foreign
    page.context.close()


def test_a_conflict_is_chosen_and_merged_by_keyboard(chromium, live_server, boat):
    page = open_page(chromium, live_server, member("release"))
    page.goto(f"{live_server.url}{PAGE}/versions/")
    page.get_by_role("link", name="Merge into main").first.click()
    page.get_by_role("group", name="Empty Image, width").get_by_label("Theirs").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Merge side into main").press("Enter")
    page.get_by_role("heading", name="v3 to v4").wait_for()
    made = Version.objects.get(number=4)
    assert (made.graph["1"]["inputs"]["width"], made.graph["1"]["inputs"]["height"], "2" in made.graph) == (32, 9, False)
    assert Branch.objects.get(name="main").head == made
    assert not page.complaints
    page.context.close()


def test_the_graph_shows_what_changed_where_the_author_put_it(chromium, live_server, boat):
    page = open_page(chromium, live_server, member("viewer"))
    page.goto(f"{live_server.url}{PAGE}/diff/?a=1&b=3")
    gone, changed = page.locator(".dag .nd.gone"), page.locator(".dag .nd.chg")
    assert gone.count() == 1
    assert "removed" in gone.get_attribute("aria-label")
    assert changed.first.bounding_box()["x"] < gone.bounding_box()["x"]
    page.get_by_role("link", name="Turn, subgraph 7").click()
    page.wait_for_url("**inside=7**")
    assert page.locator(".dag .nd").count() == 1
    page.context.close()


def test_the_list_tells_the_same_without_scripts(chromium, live_server, boat):
    page = open_page(chromium, live_server, member("viewer"), scripts=False)
    page.goto(f"{live_server.url}{PAGE}/diff/?a=1&b=3")
    page.get_by_role("link", name="List", exact=True).click()
    page.wait_for_url("**view=list**")
    table = page.get_by_role("region", name="Nodes of the picture")
    assert table.is_visible()
    assert "removed" in table.inner_text()
    page.select_option("#cmp-b", "2")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="v1 to v2").wait_for()
    page.context.close()
