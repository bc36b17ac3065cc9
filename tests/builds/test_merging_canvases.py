"""Canvas files merge like their graphs: ours stays where it was drawn, theirs brings its places, and the outcome converts to the merged graph."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from canvas_samples import recorded
from registry_samples import object_info

from builds import graphs
from builds.comparing import Content
from builds.comparing.content import same
from builds.links import cycle
from builds.merging import merge
from controlplane.kernel.errors import WorkflowError

REPOSITORY = Path(__file__).resolve().parents[2]


def drawn(node_id: int, kind: str, pos: list[int], values: list[Any], *, takes: Any = None, gives: Any = None) -> dict[str, Any]:
    """A node as the canvas saves it."""
    inputs = [{"name": name, "type": "IMAGE", "link": link} for name, link in (takes or {}).items()]
    outputs = [{"name": "IMAGE", "type": "IMAGE", "links": gives}] if gives else []
    looks = {"pos": pos, "size": [200, 100], "mode": 0}
    return {"id": node_id, "type": kind, **looks, "inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values}


LINKS = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]
CANVAS: dict[str, Any] = {
    "last_node_id": 4,
    "last_link_id": 2,
    "nodes": [
        drawn(1, "EmptyImage", [0, 0], [64, 48, 1, 255], gives=[1]),
        drawn(2, "ImageBlur", [300, 0], [1, 1.0], takes={"image": 1}, gives=[2]),
        drawn(3, "SaveImage", [600, 0], ["out"], takes={"images": 2}),
        drawn(4, "Note", [0, 300], ["mine"]),
    ],
    "links": LINKS,
    "groups": [{"title": "All", "bounding": [0, 0, 900, 300]}],
}


def graph(canvas: Any) -> dict[str, Any]:
    return graphs.parse(canvas, library=object_info())


def side(canvas: Any) -> Content:
    return Content(graph=graph(canvas), ui_graph=canvas)


def changed(*, values: Any = None, pos: Any = None, mode: Any = None) -> dict[str, Any]:
    """CANVAS with widgets_values, pos or mode of nodes replaced, by node id."""
    made = copy.deepcopy(CANVAS)
    for node in made["nodes"]:
        for key, table in (("widgets_values", values), ("pos", pos), ("mode", mode)):
            if table and node["id"] in table:
                node[key] = table[node["id"]]
    return made


def merged(ours: Any, theirs: Any, choices: Any = None, *, base: Any = CANVAS) -> Any:
    found = merge(side(base), side(ours), side(theirs), choices, convert=graph)
    assert not found.open
    if found.content.ui_graph is not None:
        assert same(graph(found.content.ui_graph), found.content.graph)
    return found


def nodes(found: Any) -> dict[int, Any]:
    return {node["id"]: node for node in found.content.ui_graph["nodes"]}


def test_values_of_both_sides_stand_in_one_node_and_ours_keeps_its_place() -> None:
    found = merged(changed(values={2: [5, 1.0]}, pos={2: [310, 5]}), changed(values={2: [1, 2.5]}, pos={2: [0, 999]}))
    assert found.content.graph["2"]["inputs"] | {"image": None} == {"image": None, "blur_radius": 5, "sigma": 2.5}
    assert (nodes(found)[2]["widgets_values"], nodes(found)[2]["pos"]) == ([5, 2.5], [310, 5])
    assert found.notes == []


def test_a_value_both_changed_is_drawn_as_it_was_chosen() -> None:
    for choice, value in (("ours", 5), ("theirs", 9)):
        found = merged(changed(values={2: [5, 1.0]}), changed(values={2: [9, 1.0]}), {"2.blur_radius": choice})
        assert nodes(found)[2]["widgets_values"] == [value, 1.0]


def test_new_nodes_come_with_their_place_and_links_even_under_a_number_that_is_taken() -> None:
    def with_node(kind: str, place: list[int], *, between: bool) -> dict[str, Any]:
        made = changed()
        made["nodes"].append(drawn(5, kind, place, [], takes={"image" if between else "images": 3}, gives=[4] if between else None))
        made["links"] = [*LINKS[:1], [3, 2, 0, 5, 0, "IMAGE"], *([[4, 5, 0, 3, 0, "IMAGE"]] if between else LINKS[1:])]
        made["nodes"][2]["inputs"][0]["link"] = 4 if between else 2
        return made

    found = merged(with_node("PreviewImage", [7, 7], between=False), with_node("ImageInvert", [450, 80], between=True))
    assert (found.renumbered, found.content.graph["3"]["inputs"]["images"]) == ({"5": "6"}, ["6", 0])
    assert (nodes(found)[5]["pos"], nodes(found)[6]["pos"], nodes(found)[6]["type"]) == ([7, 7], [450, 80], "ImageInvert")
    assert found.content.ui_graph["last_node_id"] >= 6


def test_notes_groups_and_muted_nodes_are_kept() -> None:
    theirs = changed(values={4: ["theirs"]}, mode={2: 4})
    theirs["groups"].append({"title": "New", "bounding": [0, 0, 9, 9]})
    found = merged(changed(values={1: [32, 48, 1, 255]}), theirs)
    assert "2" not in found.content.graph
    assert (nodes(found)[2]["mode"], nodes(found)[4]["widgets_values"]) == (4, ["theirs"])
    assert [group["title"] for group in found.content.ui_graph["groups"]] == ["All", "New"]


def test_a_node_taken_out_by_one_side_is_gone_from_the_canvas_too() -> None:
    theirs = changed()
    theirs["nodes"] = [node for node in theirs["nodes"] if node["id"] != 2]
    theirs["nodes"][1]["inputs"][0]["link"] = 1
    theirs["links"] = [[1, 1, 0, 3, 0, "IMAGE"]]
    found = merged(changed(values={1: [32, 48, 1, 255]}), theirs)
    assert (set(nodes(found)), found.content.graph["3"]["inputs"]["images"]) == ({1, 3, 4}, ["1", 0])


def test_a_side_without_a_canvas_leaves_none_and_says_so() -> None:
    base, ours = side(CANVAS), side(changed(values={1: [32, 48, 1, 255]}))
    theirs = Content(graph=graph(changed(values={2: [5, 1.0]})))
    found = merge(base, ours, theirs, convert=graph)
    assert (found.content.ui_graph, [note["code"] for note in found.notes]) == (None, ["canvas_not_merged"])


@pytest.mark.parametrize(
    "broken", [{"nodes": None}, {"nodes": [None]}, {"links": [[1]]}, {"links": "x"}, {"definitions": {"subgraphs": [{"nodes": 5}]}}, {"groups": 7}]
)
def test_a_canvas_that_cannot_be_read_leaves_none(broken: dict[str, Any]) -> None:
    theirs = Content(graph=graph(changed(values={2: [5, 1.0]})), ui_graph=CANVAS | broken)
    found = merge(side(CANVAS), side(changed(values={1: [32, 48, 1, 255]})), theirs, convert=graph)
    kept = found.content.ui_graph
    assert kept is None or same(graph(kept), found.content.graph)
    assert (kept is None) == bool(found.notes)


def edited(canvas: Any, rnd: random.Random, word: str) -> Any:
    """A few numbers and prompts changed anywhere, the first nodes moved."""
    made = copy.deepcopy(canvas)
    sheets = [made, *((made.get("definitions") or {}).get("subgraphs") or [])]
    spots = [
        (node["widgets_values"], at)
        for sheet in sheets
        for node in sheet["nodes"]
        if isinstance(node.get("widgets_values"), list)
        for at, value in enumerate(node["widgets_values"])
        if (isinstance(value, int | float) and not isinstance(value, bool)) or (isinstance(value, str) and node["type"] == "CLIPTextEncode")
    ]
    for values, at in rnd.sample(spots, min(3, len(spots))):
        values[at] = f"{values[at]} {word}" if isinstance(values[at], str) else values[at] + 1
    for node in made["nodes"][:2]:
        if isinstance(node.get("pos"), list):
            node["pos"] = [node["pos"][0] + len(word), *node["pos"][1:]]
    return made


def outcome(canvas: Any, convert: Any, rnd: random.Random) -> str:
    """What becomes of the canvas when both sides edit it."""
    ours, theirs = edited(canvas, rnd, "ours"), edited(canvas, rnd, "the other")
    try:
        contents = [Content(graph=convert(one), ui_graph=one) for one in (canvas, ours, theirs)]
        if any(cycle(one.graph) for one in contents):
            return "not readable"
    except WorkflowError:
        return "not readable"
    found = merge(*contents, convert=convert)
    while found.open:
        found = merge(*contents, {clash.key: rnd.choice(["ours", "theirs"]) for clash in found.clashes}, convert=convert)
    if found.content.ui_graph is None:
        return "not kept"
    assert same(convert(found.content.ui_graph), found.content.graph)
    places = {node["id"]: node["pos"] for node in found.content.ui_graph["nodes"] if "pos" in node}
    if not any(same(one.ui_graph, found.content.ui_graph) for one in contents[1:]):
        assert all(places[node["id"]] == node["pos"] for node in ours["nodes"] if "pos" in node)
    return "kept"


def test_every_recorded_canvas_case_merges_or_says_that_it_does_not() -> None:
    rnd = random.Random(3)
    said = Counter(outcome(case["ui"], lambda one: graphs.parse(one, library=recorded()["classes"]), rnd) for case in recorded()["cases"] if "ui" in case)
    assert said["kept"] >= 0.9 * (said["kept"] + said["not kept"])
    assert said["kept"] > 5


def test_every_public_template_merges_with_its_canvas() -> None:
    root = Path(os.environ.get("COMFYPLANE_SHARED", REPOSITORY.parent / "shared")) / "data" / "comfyui"
    if not (root / "conversion" / "oracle.jsonl.gz").exists():
        reason = "the recorded conversions are not here (set COMFYPLANE_SHARED)"
        pytest.fail(reason) if os.environ.get("COMFYPLANE_REQUIRE_SHARED") == "1" else pytest.skip(reason)
    info = json.loads(gzip.decompress((root / "object_info.json.gz").read_bytes()))
    rnd = random.Random(7)
    with gzip.open(root / "conversion" / "oracle.jsonl.gz", "rt") as rows:
        said = Counter(outcome(json.loads(row)["ui"], lambda one: graphs.parse(one, library=info), rnd) for row in rows)
    assert said == {"kept": 137}
