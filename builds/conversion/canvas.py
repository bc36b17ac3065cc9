"""The canvas file as it lies on disk: nodes, links and subgraph definitions, read but not yet understood.

Files come from many versions of the web client and from strangers, so every field is checked here
and nothing further in has to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.conversion.problems import refuse, short

ALWAYS, MUTED, BYPASSED = 0, 2, 4
INPUT_NODE, OUTPUT_NODE = "-10", "-20"
MAX_NODES = 20_000
MAX_LINKS = 200_000

_AGAIN = "Open the file in ComfyUI, save it again and import that file."


@dataclass(slots=True)
class Slot:
    """A socket of a node: an input when `link` may be set, else an output. `widget` names the widget it stands for."""

    name: str
    type: str
    link: int | str | None = None
    widget: str = ""


@dataclass(slots=True)
class Node:
    """A node as saved. `values` is its widgets_values: a list, or a table by name."""

    id: str
    type: str
    mode: int
    inputs: list[Slot]
    outputs: list[Slot]
    values: list[Any] | dict[str, Any]
    title: str
    properties: Mapping[str, Any]


@dataclass(slots=True)
class Link:
    """An edge: output `slot` of node `source` feeds input `target_slot` of node `target`."""

    source: str
    slot: int
    target: str
    target_slot: int


@dataclass(slots=True)
class Port:
    """An input or output of a subgraph definition, and the inner links at it."""

    name: str
    type: str
    links: list[int | str]


@dataclass(slots=True)
class Level:
    """One sheet of nodes: the root, or the inside of a subgraph definition."""

    id: str
    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[int | str, Link] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)


@dataclass(slots=True)
class Canvas:
    """A whole file: the root sheet and the subgraph definitions by id."""

    root: Level
    definitions: dict[str, Level]
    group_nodes: frozenset[str]


def is_canvas(document: Any) -> bool:
    """Whether `document` looks like a file saved by the canvas."""
    return isinstance(document, Mapping) and isinstance(document.get("nodes"), list)


def read(document: Mapping[str, Any]) -> Canvas:
    """The canvas in `document`; raises Inexact when it is damaged."""
    if not is_canvas(document):
        raise refuse(
            "not_a_canvas_file", "This document has no list of nodes, so it is not a ComfyUI canvas file.", "Save the workflow in ComfyUI and import that file."
        )
    definitions: dict[str, Level] = {}
    for raw in _definitions(document):
        level = _level(raw, where=f"subgraph {short(raw.get('name') or raw.get('id'), 60)!r}")
        if not level.id:
            raise refuse("subgraph_without_id", f"The subgraph definition {short(level.name, 60)!r} has no id.", _AGAIN)
        definitions.setdefault(level.id, level)
    extra = document.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, Mapping) else None
    names = frozenset(str(name) for name in groups) if isinstance(groups, Mapping) else frozenset()
    return Canvas(_level(document, where="the canvas"), definitions, names)


def _definitions(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every subgraph definition, those kept inside other definitions too."""
    pending: list[Mapping[str, Any]] = [document]
    for holder in pending:
        definitions = holder.get("definitions")
        listed = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
        for raw in listed if isinstance(listed, list) else ():
            if isinstance(raw, Mapping):
                pending.append(raw)
                yield raw


def _level(raw: Mapping[str, Any], *, where: str) -> Level:
    level = Level(id=str(raw.get("id") or ""), name=str(raw.get("name") or ""))
    nodes = raw.get("nodes")
    links = raw.get("links")
    listed = nodes if isinstance(nodes, list) else []
    edges = list(links.values()) if isinstance(links, Mapping) else links if isinstance(links, list) else []
    if len(listed) > MAX_NODES or len(edges) > MAX_LINKS:
        raise refuse("graph_too_large", f"In {where} there are more than {MAX_NODES:,} nodes or {MAX_LINKS:,} links.", "Split the workflow.")
    for one in listed:
        node = _node(one, where=where)
        if node.id in level.nodes:
            raise refuse("duplicate_node_id", f"In {where} two nodes have the id {short(node.id, 60)}, so links to it are ambiguous.", _AGAIN, node=node.id)
        level.nodes[node.id] = node
    for one in edges:
        found = _link(one)
        if found:
            level.links[found[0]] = found[1]
    level.inputs = _ports(raw.get("inputs"))
    level.outputs = _ports(raw.get("outputs"))
    return level


def _node(raw: Any, *, where: str) -> Node:
    node_id = _id(raw.get("id")) if isinstance(raw, Mapping) else None
    if node_id is None:
        raise refuse("node_without_id", f"In {where} there is a node without an id.", _AGAIN)
    kind = raw.get("type")
    if not isinstance(kind, str) or not kind:
        raise refuse(
            "node_without_type", f"Node {short(node_id, 60)} in {where} has no type.", "Delete the node in ComfyUI, or save the file again.", node=node_id
        )
    mode = raw.get("mode", ALWAYS)
    values = raw.get("widgets_values")
    properties = raw.get("properties")
    title = raw.get("title")
    return Node(
        id=node_id,
        type=kind,
        mode=mode if isinstance(mode, int) and not isinstance(mode, bool) else ALWAYS,
        inputs=_slots(raw.get("inputs")),
        outputs=_slots(raw.get("outputs")),
        values=list(values) if isinstance(values, list | tuple) else dict(values) if isinstance(values, Mapping) else [],
        title=title.strip() if isinstance(title, str) else "",
        properties=properties if isinstance(properties, Mapping) else {},
    )


def _slots(raw: Any) -> list[Slot]:
    slots = []
    for one in raw if isinstance(raw, list) else ():
        if not isinstance(one, Mapping):
            one = {}
        widget = one.get("widget")
        named = widget.get("name") if isinstance(widget, Mapping) else None
        link = one.get("link")
        slots.append(Slot(_name(one.get("name")), _type(one.get("type")), link if _is_key(link) else None, named if isinstance(named, str) else ""))
    return slots


def _ports(raw: Any) -> list[Port]:
    ports = []
    for one in raw if isinstance(raw, list) else ():
        if not isinstance(one, Mapping):
            one = {}
        links = one.get("linkIds")
        ports.append(Port(_name(one.get("name")), _type(one.get("type")), [link for link in links if _is_key(link)] if isinstance(links, list) else []))
    return ports


def _link(raw: Any) -> tuple[int | str, Link] | None:
    """A link in either spelling: a list of six, or an object."""
    if isinstance(raw, list | tuple) and len(raw) >= 5:
        key, source, slot, target, target_slot = raw[:5]
    elif isinstance(raw, Mapping):
        key, source, slot, target, target_slot = (raw.get(name) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot"))
    else:
        return None
    source, target = _id(source), _id(target)
    slot, target_slot = _index(slot), _index(target_slot)
    if not _is_key(key) or source is None or target is None or slot is None or target_slot is None:
        return None
    return key, Link(source, slot, target, target_slot)


def _is_key(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _id(value: Any) -> str | None:
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) and str(value) else None


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 6:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _type(value: Any) -> str:
    # Lists of choices were once saved as the type itself; 0 and -1 stood for "anything" and "event".
    return value if isinstance(value, str) else "COMBO" if isinstance(value, list) else "*"
