"""Three graphs with one name for each node, whatever number each side gave it.

A node of the base keeps its identity on both sides (`builds.comparing.matching`). One that is new on both
sides under the same number is one node only when it is equal in everything; else the numbers met by
chance, as the canvas counts on from the last, and theirs gets another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.comparing.content import same
from builds.comparing.differences import ABSENT
from builds.comparing.matching import match, title
from builds.links import Graph, as_link

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wire:
    """A link, to a node by its identity."""

    source: Key
    slot: int


@dataclass(slots=True)
class Node:
    """A node with its links as wires; everything else as it was written."""

    class_type: Any
    title: str
    inputs: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> Node:
        return Node(self.class_type, self.title, dict(self.inputs))


Side = dict[Key, Node]


@dataclass(slots=True)
class Three:
    """Base, ours and theirs by identity, and the id each node has in the result."""

    base: Side
    ours: Side
    theirs: Side
    ids: dict[Key, str]
    keys: dict[str, dict[str, Key]]


def read(base: Graph, ours: Graph, theirs: Graph) -> Three:
    """The three graphs under shared identities."""
    keys_base: dict[str, Key] = {node: ("base", node) for node in base}
    keys_ours: dict[str, Key] = {after: ("base", before) for before, after in match(base, ours).items()}
    keys_theirs: dict[str, Key] = {after: ("base", before) for before, after in match(base, theirs).items()}
    both = _equal_news(ours, theirs, keys_ours, keys_theirs)
    keys_ours = {node: keys_ours.get(node) or ("both" if node in both else "ours", node) for node in ours}
    keys_theirs = {node: keys_theirs.get(node) or ("both" if node in both else "theirs", node) for node in theirs}
    return Three(
        base=_side(base, keys_base),
        ours=_side(ours, keys_ours),
        theirs=_side(theirs, keys_theirs),
        ids=_ids(keys_base, keys_ours, keys_theirs, nowhere=_nowhere(base) | _nowhere(ours) | _nowhere(theirs)),
        keys={"base": keys_base, "ours": keys_ours, "theirs": keys_theirs},
    )


def equal(a: Any, b: Any) -> bool:
    """Whether two field values are the same: wires by identity, everything else by content."""
    if a is ABSENT or b is ABSENT or isinstance(a, Wire) or isinstance(b, Wire):
        return bool(a is b or (isinstance(a, Wire) and a == b))
    return same(a, b)


def alike(a: Node, b: Node) -> bool:
    """Whether two nodes do the same; titles do not count."""
    return same(a.class_type, b.class_type) and a.inputs.keys() == b.inputs.keys() and all(equal(a.inputs[name], b.inputs[name]) for name in a.inputs)


def write(nodes: Mapping[Key, Node], ids: Mapping[Key, str]) -> dict[str, dict[str, Any]]:
    """The API graph."""
    graph: dict[str, dict[str, Any]] = {}
    for key, node in nodes.items():
        written: dict[str, Any] = {} if node.class_type is ABSENT else {"class_type": node.class_type}
        written["inputs"] = {name: shown(value, ids) for name, value in node.inputs.items()}
        if node.title:
            written["_meta"] = {"title": node.title}
        graph[ids[key]] = written
    return graph


def shown(value: Any, ids: Mapping[Key, str]) -> Any:
    """A field's value as an API graph writes it."""
    return [ids[value.source], value.slot] if isinstance(value, Wire) else value


def _side(graph: Graph, keys: Mapping[str, Key]) -> Side:
    return {
        keys[node_id]: Node(node.get("class_type", ABSENT), title(node), {n: _wired(v, keys) for n, v in node["inputs"].items()})
        for node_id, node in graph.items()
    }


def _wired(value: Any, keys: Mapping[str, Key]) -> Any:
    link = as_link(value)
    return Wire(keys[link[0]], link[1]) if link and link[0] in keys else value


def _equal_news(ours: Graph, theirs: Graph, keys_ours: Mapping[str, Key], keys_theirs: Mapping[str, Key]) -> set[str]:
    """Ids new on both sides whose nodes are equal; each is thrown out that differs, until all that stay agree."""
    equals = {node for node in ours if node in theirs and node not in keys_ours and node not in keys_theirs}
    while equals:
        known_ours = {**keys_ours, **{node: ("both", node) for node in equals}}
        known_theirs = {**keys_theirs, **{node: ("both", node) for node in equals}}
        different = {
            node
            for node in equals
            if not alike(_side({node: ours[node]}, known_ours)[known_ours[node]], _side({node: theirs[node]}, known_theirs)[known_theirs[node]])
        }
        if not different:
            break
        equals -= different
    return equals


def _nowhere(graph: Graph) -> set[str]:
    """Ids that links of a draft lead to without there being such a node."""
    found = (as_link(value) for node in graph.values() for value in node["inputs"].values())
    return {link[0] for link in found if link and link[0] not in graph}


def _ids(base: Mapping[str, Key], ours: Mapping[str, Key], theirs: Mapping[str, Key], *, nowhere: set[str]) -> dict[Key, str]:
    """Our id, else theirs, else the base's; a number of its own where another node has it already, or a link that led nowhere would find it."""
    ids = {key: node for node, key in ours.items()}
    taken = {*ids.values(), *nowhere}
    numbers = [int(node) for node in {*base, *ours, *theirs} if node.isascii() and node.isdecimal() and len(node) < 16]
    following = max(numbers, default=0) + 1
    for side in (theirs, base):
        for node, key in side.items():
            if key in ids:
                continue
            if node in taken:
                node, following = str(following), following + 1
            ids[key] = node
            taken.add(node)
    return ids
