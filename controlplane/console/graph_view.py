"""A workflow graph as people look at it: laid out, with key values, shares of run time, exposed inputs, what is missing and what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from builds import drawing, wording
from builds.comparing import Content, Diff
from builds.comparing.parts import REMOVED
from builds.layout import LayoutGroup
from builds.links import as_link
from builds.models import Version
from controlplane.console import numbers
from fleet.queries_workflows import NodeTimes

MOST_NODES = 60
MOST_EDGES = 300
MOST_SETTINGS = 8
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
    change: str = ""
    tint: str = ""
    href: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    path: str
    type: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of nodes beside the graph, by node id."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    exposed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn, and how many nodes and wires did not fit. `original`: the places are the author's. `inside` names the subgraph shown."""

    nodes: list[Node]
    edges: list[Edge]
    width: float
    height: float
    left_out: int
    legend: list[tuple[str, str, str]]
    busiest: Node | None
    wires_left_out: int = 0
    groups: Sequence[LayoutGroup] = ()
    original: bool = False
    inside: str = ""
    name: str = ""

    @property
    def total(self) -> int:
        return len(self.nodes) + self.left_out


def wire_style(kind: str) -> tuple[str, str, str]:
    """Word, colour token and dash of a data type."""
    return _TYPES.get(kind.upper(), _OTHER)


def picture(version: Version, *, times: NodeTimes, library: Any = None, inside: str = "", query: str = "?") -> Picture:
    """The picture of a version's graph, or of the subgraph at path `inside`. Folded boxes link to `query` with inside=PATH added."""
    exposed: dict[str, list[str]] = {}
    for item in version.inputs:
        if isinstance(item, dict):
            exposed.setdefault(str(item.get("node", "")), []).append(str(item.get("name", "")))
    shares = {node: times.share(node) for node in version.graph}
    facts = Facts(
        seconds=times.seconds if times.attempts else {}, shares={node: share for node, share in shares.items() if share is not None}, exposed=exposed,
        problems=_problems(version.findings),
    )  # fmt: skip
    return _picture(version.graph, version.ui_graph, facts, library=library, inside=inside, query=query)


def of_diff(a: Content, b: Content, found: Diff, *, library: Any = None, inside: str = "", query: str = "?") -> Picture:
    """The graph of `b` with what changed marked, and what is gone from `a` drawn where it was."""
    graph: dict[str, Any] = dict(b.graph)
    ghosts = {node.before: node.before if node.before not in b.graph else f"{node.before} before" for node in found.nodes if node.status == REMOVED}
    names = {**found.matched, **ghosts}
    for before, name in ghosts.items():
        inputs = {key: _led(value, names) for key, value in a.graph[before]["inputs"].items()}
        graph[name] = {**a.graph[before], "inputs": inputs}
    changes = {ghosts[node.before] if node.status == REMOVED else node.after: node.status for node in found.nodes}
    return _picture(graph, _with_ghosts(a.ui_graph, b.ui_graph, ghosts), Facts(changes=changes), library=library, inside=inside, query=query)


def _picture(graph: Any, ui_graph: Any, facts: Facts, *, library: Any, inside: str, query: str) -> Picture:
    sheet = drawing.sheet_at(ui_graph, inside)
    if sheet is None:
        inside = ""
    laid = drawing.draw(graph, ui_graph=ui_graph, library=library, limit=MOST_NODES, first=facts.changes.keys(), inside=inside)
    nodes = [_node(n, graph, facts, query) for n in laid.nodes]
    edges = [Edge(path=e.path, type=e.type) for e in laid.edges[:MOST_EDGES]]
    timed = [n for n in nodes if n.share]
    return Picture(
        nodes=nodes,
        edges=edges,
        width=laid.width,
        height=laid.height,
        left_out=laid.left_out,
        legend=_legend(e.type for e in edges),
        busiest=max(timed, key=lambda n: n.share or 0.0) if timed else None,
        wires_left_out=len(laid.edges) - len(edges),
        groups=laid.groups,
        original=laid.original,
        inside=inside,
        name=sheet.name if sheet else "",
    )


def _led(value: Any, names: Mapping[str, str]) -> Any:
    link = as_link(value)
    return [names[link[0]], link[1]] if link and link[0] in names else value


def _with_ghosts(before: Any, after: Any, ghosts: Mapping[str, str]) -> Any:
    """The later canvas with the nodes that are gone, where the earlier one had them."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping) or not ghosts:
        return after
    nodes = before.get("nodes")
    old = (
        [{**node, "id": ghosts[str(node["id"])]} for node in nodes if isinstance(node, Mapping) and str(node.get("id")) in ghosts]
        if isinstance(nodes, list)
        else []
    )
    known = {str(node.get("id")) for node in old}
    kept = after.get("nodes")
    # Muted and bypassed nodes stand in the later canvas too, under the same number.
    return {**after, "nodes": [*(n for n in (kept if isinstance(kept, list) else []) if not isinstance(n, Mapping) or str(n.get("id")) not in known), *old]}


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


def _node(laid: Any, graph: Any, facts: Facts, query: str) -> Node:
    members: tuple[str, ...] = laid.members or (laid.id,)
    raw = graph.get(laid.id) if isinstance(graph, dict) else None
    class_type = laid.class_type if laid.members else str(raw.get("class_type", "")) if isinstance(raw, dict) else ""
    times = [facts.seconds[node] for node in members if node in facts.seconds]
    shares = [facts.shares[node] for node in members if node in facts.shares]
    seconds, share = (sum(times) if times else None), (sum(shares) if shares else None)
    exposed = tuple(name for node in members for name in facts.exposed.get(node, ()))
    problem = next((facts.problems[node] for node in members if node in facts.problems), "")
    marks = {facts.changes[node] for node in members if node in facts.changes}
    change = marks.pop() if len(marks) == 1 and (len(members) == 1 or all(node in facts.changes for node in members)) else "changed" if marks else ""
    if not problem and not laid.known:
        problem = f"{class_type or 'This node'} is not known to the current node library"
    said = [f"{laid.title or class_type}, {'subgraph' if laid.members else 'node'} {laid.id}"]
    if change:
        said.append(change)
    if laid.value:
        said.append(str(laid.value))
    if share is not None:
        said.append(f"mean {numbers.dur(seconds or 0.0)}, {numbers.pct(share)} of run time")
    if exposed:
        said.append(f"API input {', '.join(exposed)}")
    if problem:
        said.append(problem)
    return Node(
        id=laid.id,
        title=laid.title or class_type or laid.id,
        class_type=class_type,
        value=str(laid.value or ""),
        x=laid.x,
        y=laid.y,
        w=laid.w,
        h=laid.h,
        seconds=seconds,
        share=share,
        exposed=exposed,
        problem=problem,
        label=", ".join(said),
        change=change,
        tint=laid.tint,
        href=f"{query}{'' if query.endswith(('?', '&')) else '&'}{urlencode({'inside': laid.id})}" if laid.members else "",
        lines=() if laid.members else _settings(raw, laid),
    )


def _settings(raw: Any, laid: Any) -> tuple[str, ...]:
    """More of its settings, where the author's box has room for them."""
    room = min(MOST_SETTINGS, int((laid.h - 50) // 15))
    if room < 1 or not isinstance(raw, dict):
        return ()
    values = [(str(name), value) for name, value in raw.get("inputs", {}).items() if isinstance(value, str | int | float)]
    return tuple(wording.cut(" ".join(f"{name} {value}".split()), 60) for name, value in values[:room]) if len(values) > 1 else ()


def titles_of(graph: Any) -> dict[str, str]:
    """What people call each node of an API graph."""
    titles: dict[str, str] = {}
    for node_id, node in graph.items() if isinstance(graph, dict) else ():
        if isinstance(node, dict):
            titles[str(node_id)] = wording.title(node)
    return titles
