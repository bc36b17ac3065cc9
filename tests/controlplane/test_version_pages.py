"""The versions tab, the diff page and the merge page: the log with its branches, the verdict first, every conflict asked about."""

from __future__ import annotations

import copy
import json
import re
import time
from itertools import pairwise

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from builds import branches, importing, versions
from builds.comparing import Content, diff
from builds.models import Branch, Version
from controlplane.console import graph_view, rail
from controlplane.kernel.models import AuditEntry
from tests import factories
from tests.controlplane import work_rows as rows
from tests.staff import signed_in

pytestmark = pytest.mark.django_db
MOST_QUERIES, MOST_BYTES = 15, 120_000
PAGE = "/ops/workflows/boat"


@pytest.fixture
def now():
    return timezone.now()


def graph(**changes):
    """The graph of the work pages with inputs replaced: n1={"width": 32}."""
    made = copy.deepcopy(rows.GRAPH)
    for key, values in changes.items():
        made[key[1:]]["inputs"].update(values)
    return made


def bring(document, *, now, **more):
    return importing.import_graph(document=document, slug="boat", author="ann", draft=True, library=None, now=now, **more).version


@pytest.fixture
def boat(now):
    """v1 on main, v2 on side, v3 on main: both lines changed the width."""
    first = bring(graph(), now=now, expose=["1.width"], message="first")
    branches.create(workflow=first.workflow, name="side", actor="bob", now=now)
    bring(graph(n1={"width": 32, "height": 9}), now=now, branch="side", message="smaller")
    bring(graph(n1={"width": 128}, n3={"filename_prefix": "big"}), now=now, message="wider")
    return first.workflow


def page(client, url, *, status=200):
    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)
    html = response.content.decode()
    assert response.status_code == status, html[:300]
    assert len(queries) <= MOST_QUERIES, "\n".join(re.sub(r"SELECT .*? FROM", "SELECT … FROM", q["sql"])[:110] for q in queries)
    assert len(html) < MOST_BYTES
    return html


def numbers():
    return {line.name: line.head.number for line in Branch.objects.all()}


def test_the_log_shows_branches_parents_and_a_rail(boat):
    html = page(signed_in("release"), f"{PAGE}/versions/")
    assert html.count('<svg class="rail"') == 3
    assert 'diff/?a=1&amp;b=3">v1' in html
    assert "Merge into main" in html
    assert "main v1 to v3" in re.sub(r"<[^>]+>", "", html)
    only_side = page(signed_in("viewer"), f"{PAGE}/versions/?branch=side")
    assert only_side.count('<svg class="rail"') == 2
    assert "wider" not in re.search(r"<table.*?</table>", only_side, re.S)[0]
    page(signed_in("operator"), f"{PAGE}/versions/?branch=nowhere", status=404)


def test_reading_pages_writes_nothing_even_for_versions_older_than_branches(now):
    made = factories.make_workflow(now=now, slug="boat")
    for n in range(3):
        factories.make_version(made, now=now, graph=graph(n1={"width": n}))
    client = signed_in("release")
    assert "v3" in page(client, f"{PAGE}/versions/")
    page(client, f"{PAGE}/diff/?a=1&b=main")
    assert not Branch.objects.exists()


@pytest.mark.parametrize(
    ("log", "lanes"),
    [
        ([(3, (2,)), (2, (1,)), (1, ())], [0, 0, 0]),
        ([(3, (1,)), (2, (1,)), (1, ())], [0, 1, 0]),
        ([(4, (3, 2)), (3, (1,)), (2, (1,)), (1, ())], [0, 0, 1, 0]),
        ([(6, (3, 4)), (5, (3,)), (4, (2,)), (3, (1,)), (2, (1,)), (1, ())], [0, 2, 1, 0, 1, 0]),
    ],
)
def test_every_version_has_its_lane_and_no_line_breaks_off(log, lanes):
    found = rail.rows(log)
    assert [row.lane for row in found] == lanes
    for above, below in pairwise(found):
        assert {to for _, to in above.down} == {start for start, _ in below.up}
    assert found[-1].down == ()


def test_the_diff_says_the_verdict_first_and_then_every_change(boat):
    html = page(signed_in("viewer"), f"{PAGE}/diff/?a=1&b=2")
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "API compatible; 1 node changed." in text
    assert text.index("API compatible") < text.index("Calls that leave width out get 32 instead of 64.") < text.index("width: 64")
    assert "before: width: 64 + after: width: 32" in text
    assert '<g class="nd chg"' in html
    assert ", changed," in re.search(r'<g class="nd chg"[^>]*aria-label="([^"]*)"', html)[1]
    named = page(signed_in("operator"), f"{PAGE}/diff/?a=main&b=side")
    assert "v3 to v2" in named
    assert "v1 to v3" in page(signed_in("release"), f"{PAGE}/diff/")
    client = signed_in("account")
    for query in ("?a=9&b=1", "?a=nowhere&b=1", "?a=1&b=x%00y"):
        page(client, f"{PAGE}/diff/{query}", status=404)


def test_a_node_that_came_or_went_shows_what_it_holds(boat, now):
    lean = {node: one for node, one in graph(n3={"images": ["1", 0]}).items() if node != "2"}
    bring(lean, now=now)
    gone = " ".join(re.sub(r"<[^>]+>", " ", page(signed_in("viewer"), f"{PAGE}/diff/?a=1&b=4")).split())
    assert "− before: blur_radius: 2" in gone
    assert "removed" in gone
    come = " ".join(re.sub(r"<[^>]+>", " ", page(signed_in("operator"), f"{PAGE}/diff/?a=4&b=1")).split())
    assert "+ after: blur_radius: 2" in come


def test_the_json_of_a_diff_opens_with_the_session_of_the_console(boat):
    client = signed_in("viewer")
    link = re.search(r'href="(/ops/api/[^"]+)">As JSON', client.get(f"{PAGE}/diff/?a=1&b=2").content.decode())[1].replace("&amp;", "&")
    assert client.get(link).json()["api"]["verdict"] == "compatible"


def test_versions_that_do_not_differ_say_so(boat):
    assert "Nothing differs." in page(signed_in("viewer"), f"{PAGE}/diff/?a=1&b=1")


def test_what_breaks_callers_is_called_breaking(now, boat):
    made = bring(graph(n1={"width": 64}), now=now, expose=["1.height"])
    html = page(signed_in("viewer"), f"{PAGE}/diff/?a=1&b={made.number}")
    assert "API breaking" in html
    assert "width is gone; calls that send it are refused." in html


def test_added_and_removed_nodes_are_drawn_in_one_picture(now):
    a = Content(graph=graph())
    b = Content(graph={"1": rows.GRAPH["1"], "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "Keep"}}})
    picture = graph_view.of_diff(a, b, diff(a, b))
    marks = {node.id: node.change for node in picture.nodes}
    assert marks == {"1": "", "4": "added", "2": "removed", "3": "removed"} or marks == {"1": "", "4": "changed", "2": "removed"}
    assert any("removed" in node.label for node in picture.nodes)


def test_a_subgraph_is_one_box_with_a_link_and_opens(now):
    canvas = {
        "nodes": [{"id": 7, "type": "u", "pos": [0, 0], "size": [200, 90]}, {"id": 9, "type": "SaveImage", "pos": [400, 0], "size": [200, 90]}],
        "links": [],
        "groups": [{"title": rows.XSS, "bounding": [-10, -60, 300, 200], "color": "#335577"}],
        "definitions": {"subgraphs": [{"id": "u", "name": rows.XSS, "nodes": [{"id": 1, "type": "EmptyImage", "pos": [0, 0], "size": [200, 90]}]}]},
    }
    nested = {"7:1": {"class_type": "EmptyImage", "inputs": {"width": 5}}, "9": {"class_type": "SaveImage", "inputs": {"images": ["7:1", 0]}}}
    made = factories.make_workflow(now=now, slug="boat")
    factories.make_version(made, now=now, graph=nested, inputs=[], ui_graph=canvas)
    html = page(signed_in("viewer"), f"{PAGE}/")
    assert "Nodes stand where the canvas has them" in html
    assert re.search(r'<a class="nd sub" href="\?v=1&amp;view=graph&amp;inside=7"', html)
    assert "<script>alert" not in html
    opened = page(signed_in("operator"), f"{PAGE}/?v=1&view=graph&inside=7")
    assert "node 7:1" in opened
    assert "<script>alert" not in opened
    assert "node 9" in page(signed_in("release"), f"{PAGE}/?v=1&inside=nowhere")


def test_hostile_texts_are_escaped_on_every_page_of_versions(now):
    hostile = graph(n1={"height": rows.XSS, "model_name": rows.XSS + ".safetensors"})
    hostile["1"]["class_type"] = rows.XSS
    hostile["2"]["_meta"] = {"title": rows.XSS * 2}
    made = factories.make_workflow(now=now, slug="boat")
    canvas = {"nodes": [{"id": 1, "properties": {"cnr_id": rows.XSS, "ver": rows.XSS}}]}
    factories.make_version(made, now=now, graph=graph(), message=rows.XSS, ui_graph={"nodes": []})
    named = [{**rows.EXPOSED[2], "name": "x", "title": rows.XSS, "default": rows.XSS}]
    factories.make_version(made, now=now, graph=hostile, message=rows.XSS, inputs=named, ui_graph=canvas)
    client = signed_in("admin")
    for url in (f"{PAGE}/versions/", f"{PAGE}/diff/?a=1&b=2", f"{PAGE}/diff/?a=2&b=1&view=list", f"{PAGE}/merge/?from=1&into=main"):
        html = client.get(url).content.decode()
        assert "<script>alert" not in html, url
        assert "<img src=x" not in html, url


def test_two_thousand_changed_nodes_stay_within_the_weight_of_a_page(now):
    def chain(value):
        made = {"0": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
        return made | {str(n): {"class_type": "ImageBlur", "inputs": {"image": [str(n - 1), 0], "sigma": value, "note": "x" * 500}} for n in range(1, 2_000)}

    made = factories.make_workflow(now=now, slug="boat")
    for value in (1.0, 2.0):
        factories.make_version(made, now=now, graph=chain(value), inputs=[])
    started = time.thread_time()
    html = page(signed_in("viewer"), f"{PAGE}/diff/?a=1&b=2")
    assert time.thread_time() - started < 5
    assert "1,999 nodes changed" in html
    assert "60 nodes of 2,000 drawn, those that changed first" in html
    assert "more nodes differ" in html


def test_five_hundred_versions_are_cut_to_a_page(now):
    made = factories.make_workflow(now=now, slug="boat")
    Version.objects.bulk_create(
        Version(workflow=made, number=n, sha256=f"{n:064}", author="a", message="m" * 80, graph={}, inputs=[], created_at=now) for n in range(1, 501)
    )
    html = signed_in("admin").get(f"{PAGE}/versions/").content.decode()
    assert "400 older versions are not shown" in html
    assert len(html) < 3 * MOST_BYTES


# -- acting ------------------------------------------------------------------------------------------


def test_a_branch_is_made_and_deleted_from_the_page(boat):
    client = signed_in("release")
    client.post(f"{PAGE}/branches/", {"name": "try", "at": "1"})
    assert numbers() == {"main": 3, "side": 2, "try": 1}
    client.post(f"{PAGE}/branches/delete/", {"branch": "try"})
    said = client.get(f"{PAGE}/versions/").content.decode()
    assert "Branch try deleted" in said
    client.post(f"{PAGE}/branches/", {"name": "Not A Name", "at": "1"})
    assert "cannot name a branch" in client.get(f"{PAGE}/versions/").content.decode()
    assert numbers() == {"main": 3, "side": 2}


def test_a_file_is_imported_onto_a_branch_from_the_page(boat):
    client = signed_in("release")
    link = re.search(r'href="(/ops/workflows/import/[^"]+branch=side)"', page(client, f"{PAGE}/versions/"))[1].replace("&amp;", "&")
    assert 'name="branch" type="text" value="side"' in page(client, link)
    sent = {"slug": "boat", "branch": "side", "draft": "on", "document": json.dumps(graph(n1={"width": 16})), "do": "look"}
    looked = client.post("/ops/workflows/import/", sent).content.decode()
    assert "Would become v4 of boat" in looked
    client.post("/ops/workflows/import/", sent | {"do": "keep"})
    assert numbers() == {"main": 3, "side": 4}
    client.post("/ops/workflows/import/", sent | {"do": "keep", "branch": "fresh", "document": json.dumps(graph(n1={"width": 17}))})
    assert numbers() == {"main": 3, "side": 4, "fresh": 5}


def test_restore_goes_back_unless_somebody_was_faster(boat):
    client = signed_in("release")
    client.post(f"{PAGE}/restore/", {"branch": "main", "version": "1", "expected-main": "2"})
    assert "was moved by somebody else" in client.get(f"{PAGE}/versions/").content.decode()
    assert numbers()["main"] == 3
    client.post(f"{PAGE}/restore/", {"branch": "main", "version": "1", "expected-main": "3", "reason": "too wide"})
    html = client.get(f"{PAGE}/versions/").content.decode()
    assert numbers()["main"] == 1
    assert "too wide" in html
    assert AuditEntry.objects.filter(action="branch.restore", actor="ops-release", reason="too wide").exists()


def test_a_conflict_waits_for_a_choice_and_then_becomes_a_version(boat):
    client = signed_in("release")
    html = page(client, f"{PAGE}/merge/?from=side&into=main")
    assert "Needs your choice" in html
    assert "Empty Image, width" in html
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', html))
    assert (fields["key.0"], fields["expected"], fields["expected_source"]) == ("1.width", "3", "2")
    del fields["csrfmiddlewaretoken"]
    refused = client.post(f"{PAGE}/merge/", fields)
    assert refused.status_code == 409
    assert Version.objects.count() == 3
    again = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', refused.content.decode())) | {"side.0": "theirs", "message": "smaller wins"}
    done = client.post(f"{PAGE}/merge/", again, follow=True)
    made = Version.objects.get(number=4)
    assert (made.graph["1"]["inputs"]["width"], made.graph["1"]["inputs"]["height"], made.message) == (32, 9, "smaller wins")
    assert (made.parent.number, made.merged_from.number, numbers()) == (3, 2, {"main": 4, "side": 2})
    assert "v3 to v" in done.content.decode()
    assert client.post(f"{PAGE}/merge/", again).status_code == 302
    assert "Up to date" in page(client, f"{PAGE}/merge/?from=side&into=main")


def test_the_rest_can_be_settled_at_once(boat, now):
    client = signed_in("release")
    client.post(f"{PAGE}/merge/", {"from": "side", "into": "main", "rest": "ours"})
    made = Branch.objects.get(name="main").head
    assert (made.number, made.merged_from.number, made.graph["1"]["inputs"]["width"], made.graph["1"]["inputs"]["height"]) == (4, 2, 128, 9)


def test_a_merge_prepared_on_an_old_head_is_refused_and_shown_anew(boat, now):
    client = signed_in("release")
    refused = client.post(f"{PAGE}/merge/", {"from": "side", "into": "main", "rest": "ours", "expected": "1", "expected_source": "2"})
    assert refused.status_code == 409
    assert "was moved by somebody else" in refused.content.decode()
    assert Version.objects.count() == 3


def test_who_may_not_release_may_look_but_not_act(boat):
    client = signed_in("operator")
    assert "Needs the release role" in page(client, f"{PAGE}/merge/?from=side&into=main")
    for url, body in (
        ("branches/", {"name": "x"}),
        ("branches/delete/", {"branch": "side"}),
        ("restore/", {"version": "1"}),
        ("merge/", {"from": "side", "rest": "ours"}),
    ):
        assert client.post(f"{PAGE}/{url}", body).status_code == 403
    assert numbers() == {"main": 3, "side": 2}
    page(client, f"{PAGE}/merge/?from=nowhere", status=404)
    for query in ("from=side&into=nowhere", "from=side&into=x%00", "from=%00side", "from="):
        page(client, f"{PAGE}/merge/?{query}", status=404)


def test_versions_made_by_hand_still_promote(boat, now):
    client = signed_in("release")
    versions.promote(workflow=boat, channel="lab", version=boat.versions.get(number=1), actor="a", now=now)
    client.post(f"{PAGE}/promote/", {"version": "3", "channel": "lab"})
    assert json.loads(json.dumps(list(boat.channels.values_list("name", "version__number")))) == [["lab", 3]]
