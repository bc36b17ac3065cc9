"""A workflow graph as people look at it: laid out, with key values, shares of run time, exposed inputs and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from builds import layout, wording
from builds.models import Version
from controlplane.console import numbers
from fleet.queries_workflows import NodeTimes

MOST_NODES = 60
_TYPES: dict[str, tuple[str, str, str]] = {
    "MODEL": ("Model", "--c1", ""),
    "CLIP": ("CLIP", "--c2", ""),
    "CONDITIONING": ("Conditioning", "--c3", ""),
    "LATENT": ("Latent", "--c4", ""),
    "IMAGE": ("Image", "--c5", ""),
    "VAE": ("VAE", "--c6", ""),
    "MASK": ("Mask", "--c2", "6 3"),
    "AUDIO": ("Audio", "--c4", "6 3"),
    "VIDEO": ("Video", "--c5", "6 3"),
    **dict.fromkeys(("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "NUMBER"), ("Value", "--c6", "2 3")),
}
_OTHER = ("Other", "--text-3", "6 3")


@dataclass(frozen=True, slots=True)
class Node:
    """A box of the picture, and a row of the equivalent table."""

    id: str
    title: str
    class_type: str
    value: str
    x: float
    y: float
    w: float
    h: float
    seconds: float | None
    share: float | None
    exposed: tuple[str, ...]
    problem: str
    label: str


@dataclass(frozen=True, slots=True)
class Edge:
    path: str
    type: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn, and how many nodes did not fit."""

    nodes: list[Node]
    edges: list[Edge]
    width: float
    height: float
    left_out: int
    legend: list[tuple[str, str, str]]
    busiest: Node | None


def wire_style(kind: str) -> tuple[str, str, str]:
    """Word, colour token and dash of a data type."""
    return _TYPES.get(kind.upper(), _OTHER)


def picture(version: Version, *, times: NodeTimes, library: Any = None) -> Picture:
    """The picture of a version's graph."""
    laid = layout.layout(version.graph, library=library, limit=MOST_NODES)
    exposed: dict[str, list[str]] = {}
    for item in version.inputs:
        if isinstance(item, dict):
            exposed.setdefault(str(item.get("node", "")), []).append(str(item.get("name", "")))
    problems = _problems(version.findings)
    nodes = [_node(n, version.graph, times=times, exposed=tuple(exposed.get(n.id, ())), problem=problems.get(n.id, "")) for n in laid.nodes]
    edges = [Edge(path=e.path, type=e.type) for e in laid.edges]
    timed = [n for n in nodes if n.share]
    return Picture(
        nodes=nodes,
        edges=edges,
        width=laid.width,
        height=laid.height,
        left_out=laid.left_out,
        legend=_legend(e.type for e in edges),
        busiest=max(timed, key=lambda n: n.share or 0.0) if timed else None,
    )


def _legend(kinds: Iterable[str]) -> list[tuple[str, str, str]]:
    have = {wire_style(kind) for kind in kinds}
    order = [*dict.fromkeys(_TYPES.values()), _OTHER]
    return [style for style in order if style in have]


def _problems(findings: Sequence[Any]) -> dict[str, str]:
    """What is wrong with a node, in words, for the nodes that cannot run."""
    found: dict[str, str] = {}
    for finding in findings:
        if isinstance(finding, dict) and finding.get("level") == "error" and finding.get("node"):
            found.setdefault(str(finding["node"]), str(finding.get("message", "")))
    return found


def _node(laid: Any, graph: Any, *, times: NodeTimes, exposed: tuple[str, ...], problem: str) -> Node:
    raw = graph.get(laid.id) if isinstance(graph, dict) else None
    class_type = str(raw.get("class_type", "")) if isinstance(raw, dict) else ""
    share = times.share(laid.id)
    seconds = times.seconds.get(laid.id) if times.attempts else None
    if not problem and not laid.known:
        problem = f"{class_type or 'This node'} is not known to the current node library"
    said = [f"{laid.title or class_type}, node {laid.id}"]
    if laid.value:
        said.append(str(laid.value))
    if share is not None:
        said.append(f"mean {numbers.dur(seconds or 0.0)}, {numbers.pct(share)} of run time")
    if exposed:
        said.append(f"API input {', '.join(exposed)}")
    if problem:
        said.append(problem)
    return Node(
        id=laid.id, title=laid.title or class_type or laid.id, class_type=class_type, value=str(laid.value or ""), x=laid.x, y=laid.y, w=laid.w, h=laid.h,
        seconds=seconds, share=share, exposed=exposed, problem=problem, label=", ".join(said),
    )  # fmt: skip


def titles_of(graph: Any) -> dict[str, str]:
    """What people call each node of an API graph."""
    titles: dict[str, str] = {}
    for node_id, node in graph.items() if isinstance(graph, dict) else ():
        if isinstance(node, dict):
            titles[str(node_id)] = wording.title(node)
    return titles
