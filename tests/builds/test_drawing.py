"""The picture of a graph: the author's own places where a canvas has them, layers otherwise, subgraphs folded, strangers' numbers bounded."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_diffing_nodes import GRAPH, chain

from builds import drawing
from builds.drawing import SCALE

PLACES = {"4": (0, 0), "6": (400, -50), "7": (400, 200), "5": (400, 400), "3": (800, 0), "8": (1200, 0), "9": (1500, 0)}


def canvas(**more: Any) -> dict[str, Any]:
    nodes = [{"id": int(node), "type": GRAPH[node]["class_type"], "pos": list(at), "size": [300, 100]} for node, at in PLACES.items()]
    return {"nodes": nodes, "links": [], **more}


def nested() -> tuple[dict[str, Any], dict[str, Any]]:
    """GRAPH with sampler and decoder inside a subgraph 20, and its canvas."""
    table = {"3": "20:3", "8": "20:8"}
    graph: dict[str, Any] = {}
    for node_id, node in GRAPH.items():
        inputs = {name: [table.get(v[0], v[0]), v[1]] if isinstance(v, list) else v for name, v in node["inputs"].items()}
        graph[table.get(node_id, node_id)] = {**node, "inputs": inputs}
    drawn = canvas()
    inner = [node for node in drawn["nodes"] if str(node["id"]) in table]
    drawn["nodes"] = [n for n in drawn["nodes"] if n not in inner] + [{"id": 20, "type": "uuid-1", "pos": {"0": 900, "1": 0}, "size": {"0": 200, "1": 100}}]
    drawn["definitions"] = {"subgraphs": [{"id": "uuid-1", "name": "Sample and decode", "nodes": inner, "groups": []}]}
    return graph, drawn


def test_nodes_stand_where_the_author_put_them() -> None:
    laid = drawing.draw(GRAPH, ui_graph=canvas())
    assert laid.original
    at = {node.id: (node.x, node.y) for node in laid.nodes}
    for node, (x, y) in PLACES.items():
        assert at[node][0] - at["4"][0] == pytest.approx(x * SCALE, abs=0.2)
        assert at[node][1] - at["4"][1] == pytest.approx(y * SCALE, abs=0.2)
    assert all(n.x >= 0 and n.x + n.w <= laid.width and n.y >= 0 and n.y + n.h <= laid.height for n in laid.nodes)
    assert len(laid.edges) == 9


def test_groups_and_colours_are_kept_when_they_are_colours() -> None:
    drawn = canvas(
        groups=[{"title": "Load", "bounding": [-20, -80, 340, 300], "color": "#3f789e"}, {"title": "x", "bounding": [0, 0, 50, 50], "color": "url(#x)"}]
    )
    drawn["nodes"][0] |= {"bgcolor": "#335533"}
    drawn["nodes"][1] |= {"color": '"/><script>'}
    laid = drawing.draw(GRAPH, ui_graph=drawn)
    assert [(g.title, g.tint) for g in laid.groups] == [("Load", "#3f789e"), ("x", "")]
    assert {node.id: node.tint for node in laid.nodes if node.tint} == {"4": "#335533"}


def test_a_subgraph_is_one_box_that_opens() -> None:
    graph, drawn = nested()
    laid = drawing.draw(graph, ui_graph=drawn)
    assert laid.original
    [box] = [node for node in laid.nodes if node.members]
    assert (box.id, box.title, box.members, box.value) == ("20", "Sample and decode", ("20:3", "20:8"), "2 nodes inside")
    assert {node.id for node in laid.nodes} == {"4", "5", "6", "7", "9", "20"}
    assert len([edge for edge in laid.edges if edge.target == "20"]) == 5
    inside = drawing.draw(graph, ui_graph=drawn, inside="20")
    assert ({node.id for node in inside.nodes}, inside.original) == ({"20:3", "20:8"}, True)
    assert [(edge.source, edge.target) for edge in inside.edges] == [("20:3", "20:8")]


def test_a_folded_graph_in_layers_has_no_places_but_the_same_boxes() -> None:
    graph, drawn = nested()
    del drawn["nodes"][0]["pos"]
    laid = drawing.draw(graph, ui_graph=drawn)
    assert (laid.original, {node.id for node in laid.nodes}) == (False, {"4", "5", "6", "7", "9", "20"})


def test_without_a_canvas_nothing_is_folded() -> None:
    graph, _ = nested()
    assert {node.id for node in drawing.draw(graph).nodes} == set(graph)


@pytest.mark.parametrize("value", [None, "x", [1], [float("inf"), 0], [1e300, 0], [True, False], {"0": 1}, [[], {}], [0, float("nan")]])
def test_a_place_that_is_no_place_is_drawn_in_layers(value: Any) -> None:
    drawn = canvas()
    drawn["nodes"][2]["pos"] = value
    assert drawing.draw(GRAPH, ui_graph=drawn).original is False


def test_a_canvas_that_is_miles_wide_is_drawn_in_layers() -> None:
    drawn = canvas()
    drawn["nodes"][0]["pos"] = [-900_000, 0]
    laid = drawing.draw(GRAPH, ui_graph=drawn)
    assert laid.original is False
    assert laid.width < 9_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["0", "1", "id", "pos", "size", "nodes", "title", "bounding"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.data())
def test_no_canvas_breaks_the_picture(data: st.DataObject) -> None:
    graph, drawn = nested()
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.sampled_from([drawn, *drawn["nodes"], drawn["definitions"]["subgraphs"][0]]))
        key = data.draw(st.sampled_from(["nodes", "groups", "pos", "size", "flags", "type", "id", "color", "definitions", "name", "title"]))
        where = where if isinstance(where, dict) else drawn
        where[key] = data.draw(json_values)
        drawn.setdefault("definitions", {})
        if not (isinstance(drawn.get("nodes"), list) and isinstance(drawn["definitions"], dict) and drawn["definitions"].get("subgraphs")):
            break
    for inside in ("", "20", "20:3", "x" * 300, ":::"):
        laid = drawing.draw(graph, ui_graph=copy.deepcopy(drawn), inside=inside)
        assert laid.width < 20_000
        assert len(laid.nodes) <= 60


def test_two_thousand_nodes_are_drawn_sixty_at_a_time_and_those_asked_for_first() -> None:
    graph = chain(2_000)
    started = time.thread_time()
    laid = drawing.draw(graph, first={"700", "701"})
    assert time.thread_time() - started < 3
    assert (len(laid.nodes), laid.left_out) == (60, 1_940)
    assert {"700", "701"} <= {node.id for node in laid.nodes}
