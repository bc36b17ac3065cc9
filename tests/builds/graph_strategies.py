"""Random graphs, inputs and edits for the tests of comparing and merging."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from builds.comparing import Content, Diff
from builds.comparing.telling import as_json
from builds.exposed import ExposedInput
from builds.links import as_link

CLASSES = ("Load", "Blur", "Text", "Mix", "Save")
INPUTS = ("a", "b", "image", "text")
scalars = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from([0.5, 1.0, 2.5]), st.text(max_size=6), st.none(), st.just({"__value__": [1, 2]}))


@st.composite
def graphs(draw: Any, *, most: int = 9, dangling: bool = False) -> dict[str, dict[str, Any]]:
    """A graph without circles; with `dangling`, links may lead nowhere."""
    ids = draw(st.lists(st.sampled_from([*map(str, range(1, 14)), "7:3", "7:12"]), min_size=1, max_size=most, unique=True))
    graph: dict[str, dict[str, Any]] = {}
    for node_id in ids:
        sources = [*graph, *(["99"] if dangling else [])]
        value = st.one_of(scalars, st.tuples(st.sampled_from(sources), st.integers(0, 2)).map(list)) if sources else scalars
        node: dict[str, Any] = {"class_type": draw(st.sampled_from(CLASSES)), "inputs": draw(st.dictionaries(st.sampled_from(INPUTS), value, max_size=3))}
        if draw(st.booleans()):
            node["_meta"] = {"title": draw(st.text(min_size=1, max_size=5).map(lambda text: text.strip() or "t"))}
        graph[node_id] = node
    return graph


@st.composite
def edited(draw: Any, graph: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The graph after a few edits: values, titles, links, nodes added and removed. Still without circles."""
    graph = copy.deepcopy(graph)
    for _ in range(draw(st.integers(0, 4))):
        ids = list(graph)
        act = draw(st.sampled_from(["value", "link", "title", "drop", "add"])) if ids else "add"
        if act == "add":
            new = draw(st.sampled_from([str(n) for n in range(20, 26) if str(n) not in graph]))
            graph[new] = {"class_type": draw(st.sampled_from(CLASSES)), "inputs": {"a": [draw(st.sampled_from(ids)), 0]} if ids else {}}
            continue
        at = draw(st.integers(0, len(ids) - 1))
        node = graph[ids[at]]
        if act == "drop":
            del graph[ids[at]]
            for other in graph.values():
                other["inputs"] = {name: value for name, value in other["inputs"].items() if (as_link(value) or ("",))[0] != ids[at]}
        elif act == "value":
            node["inputs"][draw(st.sampled_from(INPUTS))] = draw(scalars)
        elif act == "link" and at:
            node["inputs"][draw(st.sampled_from(INPUTS))] = [draw(st.sampled_from(ids[:at])), 0]
        elif act == "title":
            node["_meta"] = {"title": draw(st.sampled_from(["x", "y"]))}
    return graph


def renumbered(graph: dict[str, Any], table: dict[str, str]) -> dict[str, Any]:
    """The graph with other ids, links following."""

    def value(raw: Any) -> Any:
        link = as_link(raw)
        return [table[link[0]], link[1]] if link and link[0] in table else raw

    return {table[node_id]: {**node, "inputs": {name: value(raw) for name, raw in node["inputs"].items()}} for node_id, node in graph.items()}


def content(graph: dict[str, Any], *, inputs: Any = (), **fields: Any) -> Content:
    return Content(graph=graph, inputs=[ExposedInput.load(one) for one in inputs], **fields)


def applied(found: Diff, graph: dict[str, Any]) -> dict[str, Any]:
    """What a graph becomes by the JSON of a diff alone."""
    said = as_json(found, whole=True)
    numbers = {node_id: said["renumbered"].get(node_id, node_id) for node_id in graph}
    changes = {one["before"]: one for one in said["nodes"] if one["status"] != "added"}
    result: dict[str, Any] = {}
    for node_id, node in graph.items():
        change = changes.get(node_id, {"status": "kept", "fields": []})
        if change["status"] == "removed":
            continue
        new = renumbered({node_id: copy.deepcopy(node)}, {**numbers})[numbers[node_id]]
        for one in change["fields"]:
            holder, key = {"class": (new, "class_type"), "title": (new, "_meta")}.get(one["kind"], (new["inputs"], one["field"]))
            if "after" not in one:
                holder.pop(key, None)
            else:
                holder[key] = {"title": one["after"]} if one["kind"] == "title" else one["after"]
        result[numbers[node_id]] = new
    return result | {one["after"]: one["node"] for one in said["nodes"] if one["status"] == "added"}
