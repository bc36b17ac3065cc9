"""The difference of two contents: what it is made of, and how it is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builds import wording
from builds.comparing import parts, schemas
from builds.comparing.content import Content, same
from builds.comparing.matching import Matched, differs, match, title
from builds.comparing.parts import ADDED, CHANGED, REMOVED, Part
from builds.exposed import ExposedInput
from builds.links import Graph, as_link, links, models

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT", "__bool__": lambda self: False})()
CLASS, TITLE, VALUE, LINK = "class", "title", "value", "link"
MODES = {2: "muted", 4: "bypassed"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a node on both sides; `ABSENT` on the side that lacks it. A link is `[node id of its own side, output]`."""

    kind: str
    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node that came, went or changed. `before` and `after` are its ids, empty on the side that lacks it; so is `node`, the whole of
    one that came or went. `mode` says how the canvas keeps a node that left the graph: muted or bypassed."""

    status: str
    before: str
    after: str
    class_type: str
    title: str
    fields: list[FieldChange] = field(default_factory=list)
    node: Mapping[str, Any] | None = None
    mode: str = ""

    @property
    def id(self) -> str:
        return self.after or self.before


@dataclass(frozen=True, slots=True)
class Limit:
    """A setting of the version that is neither graph nor input."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Diff:
    """All that differs. `matched` maps ids of one side to ids of the other; `renumbered` are those that are not equal."""

    reasons: list[schemas.Reason]
    nodes: list[NodeChange]
    models: list[Part]
    packs: list[Part]
    packages: list[Part]
    limits: list[Limit]
    pack_source: str
    matched: Matched
    canvas_changed: bool
    unchanged: dict[str, int]

    @property
    def api(self) -> str:
        """`unchanged`, `compatible` or `breaking`."""
        return schemas.verdict(self.reasons)

    @property
    def renumbered(self) -> dict[str, str]:
        return {before: after for before, after in self.matched.items() if before != after}

    @property
    def runs_alike(self) -> bool:
        """Whether both sides do the same for every caller: at most node numbers, titles and the drawing differ."""
        cosmetic = all(node.status == CHANGED and all(one.kind == TITLE for one in node.fields) for node in self.nodes)
        return cosmetic and not (self.models or self.packs or self.packages or self.limits) and all(one.level == schemas.UNCHANGED for one in self.reasons)

    @property
    def is_empty(self) -> bool:
        """Whether the two contents are one."""
        return not (self.reasons or self.nodes or self.models or self.packs or self.packages or self.limits or self.canvas_changed or self.renumbered)

    def counts(self) -> dict[str, int]:
        """How many nodes came, went and changed."""
        return {status: sum(node.status == status for node in self.nodes) for status in (ADDED, REMOVED, CHANGED)}


def diff(a: Content, b: Content) -> Diff:
    """What changes from `a` to `b`."""
    matched = match(a.graph, b.graph)
    nodes = _nodes(a, b, matched)
    changed = {one.after for one in nodes if one.status == CHANGED}
    return Diff(
        reasons=schemas.compare(a.inputs, b.inputs, same_place=lambda x, y: _same_place(x, y, a.graph, b.graph, matched)),
        nodes=nodes,
        models=parts.model_parts(a, b),
        packs=parts.pack_parts(a, b),
        packages=parts.package_parts(a, b),
        limits=[Limit(name, before, after) for name in ("timeout_s", "stall_s", "lock") if not same(before := getattr(a, name), after := getattr(b, name))],
        pack_source=parts.pack_source(a, b),
        matched=matched,
        canvas_changed=not same(a.ui_graph, b.ui_graph),
        unchanged={
            "nodes": len(matched) - len(changed),
            "links": _kept_links(a.graph, b.graph, matched),
            "models": len({one.name for one in models(a.graph)} & {one.name for one in models(b.graph)}),
        },
    )


def _nodes(a: Content, b: Content, matched: Matched) -> list[NodeChange]:
    """In the order of `b`, and then what is gone."""
    origin = {after: before for before, after in matched.items()}
    modes_a, modes_b = _modes(a.ui_graph), _modes(b.ui_graph)
    found = []
    for node_id, node in b.graph.items():
        if node_id not in origin:
            found.append(NodeChange(ADDED, "", node_id, _class(node), wording.title(node), node=node, mode=modes_a.get(node_id, "")))
            continue
        fields = _fields(a.graph, b.graph, origin[node_id], node_id, matched)
        if fields:
            found.append(NodeChange(CHANGED, origin[node_id], node_id, _class(node), wording.title(node), fields))
    for node_id, node in a.graph.items():
        if node_id not in matched:
            found.append(NodeChange(REMOVED, node_id, "", _class(node), wording.title(node), node=node, mode=modes_b.get(node_id, "")))
    return found


def _fields(a: Graph, b: Graph, before: str, after: str, matched: Matched) -> list[FieldChange]:
    x, y = a[before], b[after]
    found = []
    if _class(x) != _class(y):
        found.append(FieldChange(CLASS, "class_type", x.get("class_type", ABSENT), y.get("class_type", ABSENT)))
    if title(x) != title(y):
        found.append(FieldChange(TITLE, "title", title(x) or ABSENT, title(y) or ABSENT))
    for name in {**x["inputs"], **y["inputs"]}:
        if differs(x["inputs"], y["inputs"], name, a, b, matched):
            old, new = x["inputs"].get(name, ABSENT), y["inputs"].get(name, ABSENT)
            found.append(FieldChange(LINK if as_link(old) or as_link(new) else VALUE, name, old, new))
    return found


def _same_place(x: ExposedInput, y: ExposedInput, a: Graph, b: Graph, matched: Matched) -> bool:
    return x.input == y.input and (matched.get(x.node) == y.node if x.node in a else x.node == y.node)


def _kept_links(a: Graph, b: Graph, matched: Matched) -> int:
    there = {(link.source, link.slot, link.target, link.input) for link in links(b)}
    return sum((matched.get(link.source), link.slot, matched.get(link.target), link.input) in there for link in links(a))


def _modes(canvas: Mapping[str, Any] | None) -> dict[str, str]:
    """Nodes of the root sheet that are switched off."""
    nodes = (canvas or {}).get("nodes")
    listed = [node for node in nodes if isinstance(node, Mapping)] if isinstance(nodes, list) else []
    return {str(node.get("id")): MODES[node["mode"]] for node in listed if isinstance(node.get("mode"), int) and node["mode"] in MODES}


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type") or "")
