"""Damaged, huge and malicious canvas files: converted or refused by name, never a crash and never slow."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from canvas_samples import canvas, chain, classes, node, node_class, recorded, socket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builds import graphs
from builds.conversion import Inexact, convert
from controlplane.kernel.errors import WorkflowError

FILES = [case["ui"] for case in recorded()["cases"]]
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-30, 30),
    st.floats(allow_nan=False),
    st.text(max_size=6),
    st.sampled_from(
        ["-10", "-20", -10, -20, "../../etc/passwd", "<script>alert(1)</script>", "CON", "\x00", "{a|b}", "%date:yyyy%", "1:2", "Reroute", "PrimitiveNode"]
    ),
    st.lists(st.integers(-12, 12), max_size=6),
    st.dictionaries(st.sampled_from(["id", "name", "type", "link", "links", "nodes", "inputs"]), st.integers(-12, 12), max_size=3),
)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every spot in a document, as its holder and key."""
    found, pending = [], [document]
    for holder in pending:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                pending.append(holder[key])
    return found


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_mutated_file_is_converted_or_refused_but_never_crashes(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 6))):
        holder, key = data.draw(st.sampled_from(places(document)))
        if data.draw(st.booleans()):
            holder[key] = data.draw(JUNK)
        else:
            del holder[key]
        if not places(document):
            return
    try:
        graph = convert(document, classes())
    except Inexact as refusal:
        assert refusal.problems and refusal.suggestion
        json.dumps(refusal.envelope())
    else:
        json.dumps(graph)
        assert all(set(one) == {"inputs", "class_type", "_meta"} for one in graph.values())
    try:
        graphs.parse(document, library=classes())
    except WorkflowError as refusal:
        assert refusal.code and refusal.suggestion


@settings(max_examples=100)
@given(
    info=st.recursive(
        JUNK,
        lambda inner: st.dictionaries(
            st.sampled_from(["input", "required", "optional", "input_order", "output", "a", "template", "options", "inputs", "key"]),
            inner | st.lists(inner, max_size=3),
            max_size=4,
        ),
        max_leaves=12,
    )
)
def test_a_damaged_node_library_is_no_crash(info: Any) -> None:
    document = canvas([node(1, "X", [1, "a", None])])
    try:
        convert(document, {"X": info} if not isinstance(info, dict) else {"X": info, **info})
    except Inexact as refusal:
        assert refusal.problems


def test_a_row_of_ten_thousand_reroutes_is_followed_to_its_end() -> None:
    count = 10_000
    nodes = [node(1, "EmptyImage", [64, 32, 1, 0]), node(count + 2, "SaveImage", ["p"], [socket("images", "IMAGE", count + 1)])]
    nodes += [node(at, "Reroute", None, [socket("", "*", at - 1)], outputs=[{"name": "", "type": "*"}]) for at in range(2, count + 2)]
    links = [[at, at, 0, at + 1, 0, "IMAGE"] for at in range(1, count + 2)]
    started = time.thread_time()
    graph = convert(canvas(nodes, links), classes())
    assert graph[str(count + 2)]["inputs"]["images"] == ["1", 0]
    assert time.thread_time() - started < 5


def test_ten_thousand_nodes_are_refused_by_size_when_imported() -> None:
    document = canvas([node(at, "EmptyImage", [64, 32, 1, 0]) for at in range(10_000)])
    assert len(convert(document, classes())) == 10_000
    with pytest.raises(WorkflowError) as refusal:
        graphs.parse(document, library=classes())
    assert refusal.value.code == "graph_too_large"
    with pytest.raises(Inexact) as refusal:
        convert(canvas([node(at, "Note") for at in range(20_001)]), classes())
    assert refusal.value.code == "graph_too_large"


def test_subgraphs_that_unfold_without_end_are_refused() -> None:
    doubling = [{"id": f"s{at}", "name": f"s{at}", "nodes": [node(1, f"s{at + 1}"), node(2, f"s{at + 1}")], "links": []} for at in range(30)]
    started = time.thread_time()
    with pytest.raises(Inexact) as refusal:
        convert(canvas([node(1, "s0")], subgraphs=doubling), classes())
    assert refusal.value.code == "graph_too_large"
    itself = {"id": "s", "name": "<b>again</b>", "nodes": [node(1, "s")], "links": []}
    with pytest.raises(Inexact) as refusal:
        convert(canvas([node(1, "s")], subgraphs=[itself]), classes())
    assert refusal.value.code == "subgraph_recursive"
    assert time.thread_time() - started < 5


def test_reroutes_in_a_circle_are_named() -> None:
    nodes = [
        node(1, "Reroute", None, [socket("", "*", 2)]),
        node(2, "Reroute", None, [socket("", "*", 1)]),
        node(3, "SaveImage", ["p"], [socket("images", "IMAGE", 3)]),
    ]
    with pytest.raises(Inexact) as refusal:
        convert(canvas(nodes, [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"], [3, 2, 0, 3, 0, "*"]]), classes())
    assert (refusal.value.code, refusal.value.problems[0].node, refusal.value.problems[0].field) == ("circular_link", "3", "images")


@pytest.mark.parametrize("title", ["<img src=x onerror=alert(1)>", "../../../etc/passwd", "NUL", "a" * 5_000, "‮gpj.exe", "{{7*7}}", "\n\n\n"])
def test_hostile_titles_and_names_travel_as_text_and_stay_short_in_messages(title: str) -> None:
    document = chain("ImageInvert")
    document["nodes"][2] |= {"title": title}
    assert convert(document, classes())["2"]["_meta"]["title"] == (title.strip() or "Invert Image")
    document["nodes"][2] |= {"type": "X" + title}
    with pytest.raises(Inexact) as refusal:
        convert(document, classes())
    assert len(refusal.value.message) < 600
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"nodes": [5]}, "node_without_id"),
        ({"nodes": [{"id": 1}]}, "node_without_type"),
        ({"nodes": [{"id": 1, "type": "A"}, {"id": "1", "type": "B"}]}, "duplicate_node_id"),
        ({"nodes": []}, "canvas_empty"),
        ({"nodes": [{"id": 1, "type": "Note"}]}, "canvas_empty"),
        ({"links": []}, "not_a_canvas_file"),
        ({"nodes": [], "definitions": {"subgraphs": [{"nodes": []}]}}, "subgraph_without_id"),
        (canvas([node(3, "SaveImage", ["p"], [socket("images", "IMAGE", 2)])], [[2, 7, 0, 3, 0, "IMAGE"]]), "link_broken"),
        (canvas([node(3, "workflow>mine", [1])]), "group_node"),
        (canvas([node(3, "Anything Everywhere", [])]), "rewrites_the_graph"),
        (canvas([node(3, "11111111-2222-3333-4444-555555555555")]), "unknown_node_class"),
    ],
)
def test_half_a_graph_is_refused_by_its_code(document: Any, code: str) -> None:
    with pytest.raises(Inexact) as refusal:
        convert(document, classes())
    assert refusal.value.code == code
    assert refusal.value.suggestion


def test_every_problem_of_a_file_is_said_at_once() -> None:
    document = canvas([node(at, f"Unknown{at}") for at in range(60)])
    with pytest.raises(Inexact) as refusal:
        convert(document, {"A": node_class()})
    assert refusal.value.details["problem_count"] == 60
    assert len(refusal.value.details["problems"]) == 50
