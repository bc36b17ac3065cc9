"""The picture of a graph: where its author put the nodes, when a canvas says so, else in layers; subgraphs folded into one box.

A canvas is drawn as far as it can be read: its places, sizes, colours and groups. The nodes and wires are always
those of the API graph, so that nothing is shown that does not run. Canvas files come from strangers: numbers are
bounded, colours are checked, and a sheet that would become too large is drawn in layers instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from builds import layout as layers
from builds import wording
from builds.layout import Layout, LayoutEdge, LayoutGroup, LayoutNode, wire
from builds.links import Graph, as_link, links
from builds.nodespecs import info_of, read

SCALE = 0.62
LEAST_W, LEAST_H, MOST_W, MOST_H = 104.0, 44.0, 420.0, 200.0
TITLE_H = 30.0
MARGIN = 18.0
MOST_PX = 9_000.0
MOST_GROUPS = 40
FARTHEST = 1e6
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")


@dataclass(frozen=True, slots=True)
class Sheet:
    """One level of a canvas: its nodes by id as they lie in the file, its frames, its name, and the names of the subgraphs in it."""

    nodes: Mapping[str, Mapping[str, Any]]
    groups: list[Any]
    name: str
    subgraphs: Mapping[str, str]


def draw(
    graph: Graph, *, ui_graph: Mapping[str, Any] | None = None, library: Any = None, limit: int = layers.LIMIT, first: Collection[str] = (), inside: str = ""
) -> Layout:
    """The picture of one sheet: the root, or the inside of the subgraph at path `inside`, such as `7` or `7:3`."""
    sheet = sheet_at(ui_graph, inside)
    prefix = f"{inside}:" if inside else ""
    folded, members = fold(graph, prefix, sheet)
    wanted = [box for box, nodes in members.items() if any(node in first for node in nodes)]
    info = info_of(library)
    specs = {box: read(info, node.get("class_type")) for box, node in folded.items()}
    places = _places(sheet, prefix, folded) if sheet else None
    if places is None:
        drawn = layers.layout(folded, library=library, limit=limit, first=wanted)
        return replace(drawn, nodes=[_folded(node, members, sheet, prefix) for node in drawn.nodes], edges=_typed(drawn.edges, graph, folded, info))
    kept = layers.choose(folded, specs, limit, wanted)
    edges = list(links(kept))
    nodes = []
    for box, node in kept.items():
        x, y, w, h = places[box]
        title = wording.title(node, specs[box])
        nodes.append(
            LayoutNode(
                id=box, title=title, short=wording.cut(title, 19), class_type=str(node.get("class_type", "")), value=wording.key_value(node), layer=0,
                x=x, y=y, w=w, h=h, is_output=layers.is_output(box, specs, edges), known=info is None or specs[box] is not None,
            )
        )  # fmt: skip
    return _framed(
        [_folded(node, members, sheet, prefix) for node in nodes], _typed(_wired(edges, places), graph, folded, info), sheet, len(folded) - len(kept)
    )


def sheet_at(ui_graph: Mapping[str, Any] | None, inside: str = "") -> Sheet | None:
    """The sheet of a canvas that is at this path; None when the canvas has none there."""
    if not isinstance(ui_graph, Mapping):
        return None
    definitions = {str(one.get("id")): one for one in _definitions(ui_graph)}
    level: Mapping[str, Any] = ui_graph
    name = ""
    for step in [part for part in inside.split(":") if part][:40]:
        host = _nodes(level).get(step)
        inner = definitions.get(str(host.get("type"))) if host else None
        if inner is None:
            return None
        level, name = inner, str(inner.get("name") or "Subgraph")
    nodes = _nodes(level)
    names = {
        key: str(node.get("title") or definitions[str(node.get("type"))].get("name") or "Subgraph")
        for key, node in nodes.items()
        if str(node.get("type")) in definitions
    }
    groups = level.get("groups")
    return Sheet(nodes, groups if isinstance(groups, list) else [], name[:200], names)


def fold(graph: Graph, prefix: str, sheet: Sheet | None) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[str, ...]]]:
    """The graph of one sheet, each subgraph as one node, and the nodes that stand behind every box. Without a canvas nothing is folded."""
    box_of: dict[str, str] = {}
    for node_id in graph:
        if node_id.startswith(prefix):
            step = node_id[len(prefix) :].partition(":")[0]
            box_of[node_id] = prefix + step if sheet is not None and step in sheet.subgraphs else node_id
    members: dict[str, list[str]] = {}
    folded: dict[str, dict[str, Any]] = {}
    for node_id, box in box_of.items():
        members.setdefault(box, []).append(node_id)
        node = graph[node_id]
        if box == node_id:
            folded[box] = {**node, "inputs": {name: _moved(value, box_of) for name, value in node["inputs"].items()}}
            continue
        assert sheet is not None
        target = folded.setdefault(box, {"class_type": "Subgraph", "_meta": {"title": sheet.subgraphs[box[len(prefix) :]][:200]}, "inputs": {}})
        for name, value in node["inputs"].items():
            link = as_link(value)
            if link and box_of.get(link[0]) not in (None, box):
                target["inputs"][f"{node_id}.{name}"] = [box_of[link[0]], link[1]]
    return folded, {box: tuple(nodes) for box, nodes in members.items()}


def _moved(value: Any, box_of: Mapping[str, str]) -> Any:
    link = as_link(value)
    return [box_of[link[0]], link[1]] if link and link[0] in box_of else value


def _folded(node: LayoutNode, members: Mapping[str, tuple[str, ...]], sheet: Sheet | None, prefix: str) -> LayoutNode:
    nodes = members.get(node.id, (node.id,))
    raw = sheet.nodes.get(node.id[len(prefix) :], {}) if sheet else {}
    tint = raw.get("bgcolor") or raw.get("color")
    tint = tint if isinstance(tint, str) and _COLOUR.fullmatch(tint) else ""
    if nodes == (node.id,):
        return replace(node, tint=tint)
    return replace(node, tint=tint, members=nodes, class_type="Subgraph", known=True, value=f"{len(nodes)} node{'' if len(nodes) == 1 else 's'} inside")


def _typed(edges: list[LayoutEdge], graph: Graph, folded: Graph, info: Any) -> list[LayoutEdge]:
    """Data types by the node that really gives the value, which may stand inside a folded box."""
    found = []
    for edge in edges:
        target, _, name = edge.input.partition(".") if folded[edge.target].get("class_type") == "Subgraph" else (edge.target, "", edge.input)
        link = as_link(graph[target]["inputs"].get(name)) if target in graph else None
        spec = read(info, graph[link[0]].get("class_type")) if link and link[0] in graph else None
        given = spec.outputs[link[1]] if spec and link and link[1] < len(spec.outputs) else ""
        found.append(replace(edge, type=given if isinstance(given, str) else "COMBO") if spec else edge)
    return found


def _wired(edges: list[Any], places: Mapping[str, tuple[float, float, float, float]]) -> list[LayoutEdge]:
    outs: dict[str, set[int]] = {}
    ins: dict[str, list[str]] = {}
    for edge in edges:
        outs.setdefault(edge.source, set()).add(edge.slot)
        ins.setdefault(edge.target, []).append(edge.input)
    drawn = []
    for edge in edges:
        sx, sy, sw, sh = places[edge.source]
        tx, ty, _, th = places[edge.target]
        slots, inputs = sorted(outs[edge.source]), ins[edge.target]
        start = (sx + sw, sy + sh * (slots.index(edge.slot) + 1) / (len(slots) + 1))
        end = (tx, ty + th * (inputs.index(edge.input) + 1) / (len(inputs) + 1))
        drawn.append(LayoutEdge(edge.source, edge.slot, edge.target, edge.input, "", wire([start, end])))
    return drawn


def _places(sheet: Sheet, prefix: str, folded: Graph) -> dict[str, tuple[float, float, float, float]] | None:
    """Box → x, y, width, height in the picture's scale; None unless the canvas places every box within bounds."""
    places = {}
    for box in folded:
        raw = sheet.nodes.get(box[len(prefix) :])
        at, size = _two(raw.get("pos")) if raw else None, _two(raw.get("size")) if raw else None
        if at is None or raw is None:
            return None
        collapsed = isinstance(raw.get("flags"), Mapping) and bool(raw["flags"].get("collapsed"))
        w, h = size or (210.0, 60.0)
        height = LEAST_H if collapsed else min(max((h + TITLE_H) * SCALE, LEAST_H), MOST_H)
        places[box] = (at[0] * SCALE, (at[1] - TITLE_H) * SCALE, min(max(w * SCALE, LEAST_W), MOST_W), height)
    width = max((x + w for x, _, w, _ in places.values()), default=0) - min((x for x, *_ in places.values()), default=0)
    height = max((y + h for _, y, _, h in places.values()), default=0) - min((y for _, y, *_ in places.values()), default=0)
    return places if width <= MOST_PX and height <= MOST_PX else None


def _framed(nodes: list[LayoutNode], edges: list[LayoutEdge], sheet: Sheet | None, left_out: int) -> Layout:
    """The picture moved to its own origin, with the frames that lie near the nodes."""
    left = min((n.x for n in nodes), default=0.0)
    top = min((n.y for n in nodes), default=0.0)
    right, bottom = max((n.x + n.w for n in nodes), default=0.0), max((n.y + n.h for n in nodes), default=0.0)
    groups = [g for g in _groups(sheet) if g.x < right and g.x + g.w > left and g.y < bottom and g.y + g.h > top]
    left, top = min([left, *(g.x for g in groups)]), min([top, *(g.y for g in groups)])
    right, bottom = max([right, *(g.x + g.w for g in groups)]), max([bottom, *(g.y + g.h for g in groups)])
    if right - left > MOST_PX or bottom - top > MOST_PX:
        groups = []
        left, top = min((n.x for n in nodes), default=0.0), min((n.y for n in nodes), default=0.0)
        right, bottom = max((n.x + n.w for n in nodes), default=0.0), max((n.y + n.h for n in nodes), default=0.0)
    dx, dy = MARGIN - left, MARGIN - top
    return Layout(
        nodes=[replace(n, x=round(n.x + dx, 1), y=round(n.y + dy, 1), w=round(n.w, 1), h=round(n.h, 1)) for n in nodes],
        edges=[replace(e, path=_shifted(e.path, dx, dy)) for e in edges],
        width=round(right - left + 2 * MARGIN, 1),
        height=round(bottom - top + 2 * MARGIN, 1),
        left_out=left_out,
        groups=tuple(replace(g, x=round(g.x + dx, 1), y=round(g.y + dy, 1)) for g in groups),
        original=True,
    )


def _shifted(path: str, dx: float, dy: float) -> str:
    """A wire of one curve, moved."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
    x, y, x1, y1, x2, y2, x3, y3 = numbers
    return f"M{x + dx:.1f} {y + dy:.1f}C{x1 + dx:.1f} {y1 + dy:.1f} {x2 + dx:.1f} {y2 + dy:.1f} {x3 + dx:.1f} {y3 + dy:.1f}"


def _groups(sheet: Sheet | None) -> Iterator[LayoutGroup]:
    for raw in (sheet.groups if sheet else [])[:MOST_GROUPS]:
        box = raw.get("bounding") if isinstance(raw, Mapping) else None
        numbers = [_number(value) for value in box[:4]] if isinstance(box, list) and len(box) >= 4 else []
        x, y, w, h = (value * SCALE if value is not None else 0.0 for value in [*numbers, None, None, None, None][:4])
        if len(numbers) == 4 and None not in numbers and w > 0 and h > 0:
            tint = raw.get("color")
            title = " ".join(str(raw.get("title") or "").split())
            yield LayoutGroup(title[:80], x, y, round(w, 1), round(h, 1), tint if isinstance(tint, str) and _COLOUR.fullmatch(tint) else "")


def _nodes(level: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    nodes = level.get("nodes")
    listed = nodes if isinstance(nodes, list) else []
    return {str(node["id"]): node for node in listed if isinstance(node, Mapping) and isinstance(node.get("id"), int | str)}


def _definitions(canvas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    pending = [canvas]
    for holder in pending:
        definitions = holder.get("definitions")
        inner = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
        for one in inner if isinstance(inner, list) else ():
            if isinstance(one, Mapping):
                pending.append(one)
                yield one


def _two(value: Any) -> tuple[float, float] | None:
    """A pair of coordinates, saved as a list or, by older canvases, as an object with keys 0 and 1."""
    pair = [value.get("0"), value.get("1")] if isinstance(value, Mapping) else value
    if not isinstance(pair, list) or len(pair) < 2:
        return None
    x, y = _number(pair[0]), _number(pair[1])
    return (x, y) if x is not None and y is not None else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > FARTHEST:
        return None
    return float(value)
