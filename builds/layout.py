"""Where the nodes of a graph stand when it is drawn left to right, and how its wires run.

Longest-path layers, sources pulled next to what they feed, barycentre ordering, long wires bent
through places of their own in the layers they cross. Pure: a graph in, coordinates out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from builds import wording
from builds.links import Graph, Link, layers, links, upstream
from builds.nodespecs import NodeSpec, info_of, read

NODE_W, NODE_H = 136.0, 50.0
GAP_X, GAP_Y, LANE, MARGIN = 36.0, 20.0, 18.0, 16.0
LIMIT = 60
MAX_LANES = 1_500
SWEEPS = 6


@dataclass(frozen=True, slots=True)
class LayoutNode:
    """A box; `short` is its title cut to what fits, `value` its most telling setting. `members` are the nodes folded into it."""

    id: str
    title: str
    short: str
    class_type: str
    value: str
    layer: int
    x: float
    y: float
    w: float
    h: float
    is_output: bool
    known: bool
    tint: str = ""
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayoutEdge:
    """A wire; `type` is the data type it carries, empty when no library knows."""

    source: str
    slot: int
    target: str
    input: str
    type: str
    path: str


@dataclass(frozen=True, slots=True)
class LayoutGroup:
    """A frame the author drew behind some nodes; `tint` is a colour such as #88a1bb, or empty."""

    title: str
    x: float
    y: float
    w: float
    h: float
    tint: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """`original` says that the places are the author's own."""

    nodes: list[LayoutNode]
    edges: list[LayoutEdge]
    width: float
    height: float
    left_out: int
    groups: tuple[LayoutGroup, ...] = ()
    original: bool = False


# A place in a layer: a node's id, or (edge index, layer) where a long wire passes.
Place = str | tuple[int, int]


def layout(graph: Graph, *, library: Any = None, limit: int = LIMIT, first: Collection[str] = ()) -> Layout:
    """The drawing of at most `limit` nodes: those in `first`, then those nearest to the outputs."""
    info = info_of(library)
    specs = {node_id: read(info, node.get("class_type")) for node_id, node in graph.items()}
    drawn = choose(graph, specs, limit, first)
    if not drawn:
        return Layout([], [], 2 * MARGIN, 2 * MARGIN, len(graph))
    edges = list(links(drawn))
    layer = _pulled(drawn, layers(drawn), edges)
    columns, chains = _columns(drawn, layer, edges)
    _order(columns, chains)
    y = _heights(columns, chains)
    nodes = [
        LayoutNode(
            id=node_id,
            title=(title := wording.title(node, specs[node_id])),
            short=wording.cut(title, 19),
            class_type=str(node.get("class_type", "")),
            value=wording.key_value(node),
            layer=layer[node_id],
            x=_x(layer[node_id]),
            y=round(y[node_id] - NODE_H / 2, 1),
            w=NODE_W,
            h=NODE_H,
            is_output=is_output(node_id, specs, edges),
            known=info is None or specs[node_id] is not None,
        )
        for node_id, node in drawn.items()
    ]
    height = max([*y.values()]) + NODE_H / 2 + MARGIN
    width = _x(max(layer.values())) + NODE_W + MARGIN
    return Layout(nodes, _wires(edges, specs, layer, chains, y), round(width, 1), round(height, 1), len(graph) - len(drawn))


def is_output(node_id: str, specs: Mapping[str, NodeSpec | None], edges: list[Link]) -> bool:
    spec = specs[node_id]
    return spec.is_output if spec else all(edge.source != node_id for edge in edges)


def choose(graph: Graph, specs: Mapping[str, NodeSpec | None], limit: int, first: Collection[str] = ()) -> dict[str, Mapping[str, Any]]:
    """At most `limit` nodes worth drawing: those asked for, then what outputs reach, nearest first."""
    if len(graph) <= limit:
        return dict(graph)
    feeding = {link.source for link in links(graph)}
    ends = [node_id for node_id, spec in specs.items() if (spec.is_output if spec else node_id not in feeding)] or list(graph)[-1:]
    depth = layers(graph)
    reached = upstream(graph, ends)
    asked = set(first)
    kept = set(sorted(graph, key=lambda node_id: (node_id not in asked, node_id not in reached, -depth[node_id]))[: max(limit, 0)])
    return {node_id: node for node_id, node in graph.items() if node_id in kept}


def _pulled(graph: Graph, layer: dict[str, int], edges: list[Link]) -> dict[str, int]:
    """Nodes that nothing feeds move right, next to the first node they feed."""
    fed = {edge.target for edge in edges}
    for node_id in graph:
        below = [layer[edge.target] for edge in edges if edge.source == node_id]
        if node_id not in fed and below:
            layer[node_id] = max(min(below) - 1, 0)
    return layer


def _columns(graph: Graph, layer: Mapping[str, int], edges: list[Link]) -> tuple[list[list[Place]], list[list[Place]]]:
    """Places layer by layer, and for each edge the places it goes through."""
    columns: list[list[Place]] = [[] for _ in range(max(layer.values()) + 1)]
    for node_id in graph:
        columns[layer[node_id]].append(node_id)
    chains: list[list[Place]] = []
    lanes = sum(max(layer[edge.target] - layer[edge.source] - 1, 0) for edge in edges)
    for index, edge in enumerate(edges):
        passed: list[Place] = []
        if lanes <= MAX_LANES:
            passed = [(index, at) for at in range(layer[edge.source] + 1, layer[edge.target])]
        for place in passed:
            columns[place[1]].append(place)  # type: ignore[index, call-overload]
        chains.append([edge.source, *passed, edge.target])
    return columns, chains


def _neighbours(chains: list[list[Place]]) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    left: dict[Place, list[Place]] = {}
    right: dict[Place, list[Place]] = {}
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            right.setdefault(a, []).append(b)
            left.setdefault(b, []).append(a)
    return left, right


def _order(columns: list[list[Place]], chains: list[list[Place]]) -> None:
    """Sort every layer by the mean position of its neighbours, to and fro."""
    left, right = _neighbours(chains)
    position: dict[Place, float] = {place: index for column in columns for index, place in enumerate(column)}
    for sweep in range(SWEEPS):
        near = left if sweep % 2 == 0 else right
        for column in columns if sweep % 2 == 0 else reversed(columns):
            weights = {place: _mean([position[one] for one in near.get(place, ())], position[place]) for place in column}
            column.sort(key=weights.__getitem__)
            position.update({place: float(index) for index, place in enumerate(column)})


def _heights(columns: list[list[Place]], chains: list[list[Place]]) -> dict[Place, float]:
    """The middle of every place: near its neighbours, in order, without touching."""
    left, right = _neighbours(chains)
    y: dict[Place, float] = {}
    for column in columns:
        y.update(zip(column, _spread([0.0] * len(column), column), strict=True))
    for sweep in range(SWEEPS):
        near = left if sweep % 2 == 0 else right
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wished = [_mean([y[one] for one in near.get(place, ())], y[place]) for place in column]
            y.update(zip(column, _spread(wished, column), strict=True))
    top = min(value - _half(place) for place, value in y.items()) - MARGIN
    return {place: value - top for place, value in y.items()}


def _spread(wished: list[float], column: list[Place]) -> list[float]:
    """Wishes pushed apart: the mean of pushing down and pushing up keeps every distance that both keep."""
    apart = [_half(a) + _half(b) + (GAP_Y if isinstance(a, str) and isinstance(b, str) else 6.0) for a, b in itertools.pairwise(column)]
    down, up = list(wished), list(wished)
    for index, distance in enumerate(apart):
        down[index + 1] = max(down[index + 1], down[index] + distance)
    for index in range(len(apart) - 1, -1, -1):
        up[index] = min(up[index], up[index + 1] - apart[index])
    return [(a + b) / 2 for a, b in zip(down, up, strict=True)]


def _half(place: Place) -> float:
    return NODE_H / 2 if isinstance(place, str) else LANE / 2


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _x(layer: int) -> float:
    return MARGIN + layer * (NODE_W + GAP_X)


def _wires(
    edges: list[Link], specs: Mapping[str, NodeSpec | None], layer: Mapping[str, int], chains: list[list[Place]], y: Mapping[Place, float]
) -> list[LayoutEdge]:
    starts = _ports([(edge.source, y[chains[index][1]], index) for index, edge in enumerate(edges)])
    ends = _ports([(edge.target, y[chains[index][-2]], index) for index, edge in enumerate(edges)])
    drawn = []
    for index, edge in enumerate(edges):
        points = [(_x(layer[edge.source]) + NODE_W, y[edge.source] + starts[index])]
        for place in chains[index][1:-1]:
            left = _x(place[1])  # type: ignore[arg-type]
            points += [(left, y[place]), (left + NODE_W, y[place])]
        points.append((_x(layer[edge.target]), y[edge.target] + ends[index]))
        spec = specs[edge.source]
        given = spec.outputs[edge.slot] if spec and edge.slot < len(spec.outputs) else ""
        kind = given if isinstance(given, str) else "COMBO"
        drawn.append(LayoutEdge(edge.source, edge.slot, edge.target, edge.input, kind, wire(points)))
    return drawn


def _ports(ends: list[tuple[str, float, int]]) -> dict[int, float]:
    """Edge index → how far from the middle of its node it docks; sorted, so that wires do not cross at the node."""
    by_node: dict[str, list[tuple[float, int]]] = {}
    for node, toward, index in ends:
        by_node.setdefault(node, []).append((toward, index))
    offsets = {}
    for docked in by_node.values():
        pitch = min(10.0, (NODE_H - 14) / max(len(docked) - 1, 1))
        for rank, (_, index) in enumerate(sorted(docked)):
            offsets[index] = (rank - (len(docked) - 1) / 2) * pitch
    return offsets


def wire(points: list[tuple[float, float]]) -> str:
    """Curves between layers, straight across them."""
    (x, y), *rest = points
    said = [f"M{x:.1f} {y:.1f}"]
    for index, (nx, ny) in enumerate(rest):
        if index % 2:
            said.append(f"H{nx:.1f}")
        else:
            bend = max(18.0, abs(nx - x) * 0.45)
            said.append(f"C{x + bend:.1f} {y:.1f} {nx - bend:.1f} {ny:.1f} {nx:.1f} {ny:.1f}")
        x, y = nx, ny
    return "".join(said)
