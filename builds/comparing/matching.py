"""Which node of one graph is which node of another.

Two readings are made and the one that leaves fewer changes is taken, ids winning a tie:

- by id: nodes of one id and one class are the same node;
- by shape: nodes of equal fingerprint are the same, where a fingerprint covers the class, the values and
  everything upstream (as in a Merkle tree) or downstream. This finds every node of an export that merely
  renumbered them, and all but the surroundings of an edit in one that did both.

Each reading is then completed: along links from matched nodes (the node that feeds the same input of
the same node), by equal class and values, by class and title, by class and neighbouring classes, and
last by a class that only one node on each side has. Every step is linear in the size of the graphs;
nothing recurses, and graphs that run in a circle are matched too.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from builds.comparing.content import same
from builds.links import Graph, as_link, links

Matched = dict[str, str]


def match(a: Graph, b: Graph) -> Matched:
    """Ids of `a` → ids of the same nodes in `b`; what has no counterpart is not in it."""
    by_id = _Match(a, b)
    by_id.pair((node, node) for node in a if node in b and _class(a[node]) == _class(b[node]))
    by_id.complete()
    if all(node in by_id.found for node in a) and len(a) == len(b) and changes(a, b, by_id.found) == 0:
        return by_id.found
    by_shape = _Match(a, b)
    (up_a, down_a), (up_b, down_b) = _shapes(a), _shapes(b)
    by_shape.pair_by(lambda node: (up_a[node], down_a[node]), lambda node: (up_b[node], down_b[node]), several=True)
    by_shape.pair_by(up_a.__getitem__, up_b.__getitem__)
    by_shape.pair_by(down_a.__getitem__, down_b.__getitem__)
    by_shape.complete()
    by_shape.pair((node, node) for node in a if node in b and _class(a[node]) == _class(b[node]))
    by_shape.complete()
    return min(by_id.found, by_shape.found, key=lambda found: changes(a, b, found))


def changes(a: Graph, b: Graph, matched: Matched) -> int:
    """How many fields differ under a reading; a node on one side only counts all of its own."""
    count = sum(1 + len(node["inputs"]) for node_id, node in a.items() if node_id not in matched)
    reached = set(matched.values())
    count += sum(1 + len(node["inputs"]) for node_id, node in b.items() if node_id not in reached)
    for before, after in matched.items():
        x, y = a[before], b[after]
        count += (_class(x) != _class(y)) + (title(x) != title(y))
        count += sum(differs(x["inputs"], y["inputs"], name, a, b, matched) for name in {**x["inputs"], **y["inputs"]})
    return count


def differs(x: Mapping[str, Any], y: Mapping[str, Any], name: str, a: Graph, b: Graph, matched: Matched) -> bool:
    """Whether an input of a matched pair differs: links are the same when they lead to the same node and output."""
    if name not in x or name not in y:
        return True
    before, after = as_link(x[name]), as_link(y[name])
    if before is None or after is None:
        return (before is None) != (after is None) or not same(x[name], y[name])
    if before[1] != after[1]:
        return True
    if before[0] in a or after[0] in b:
        return matched.get(before[0]) != after[0] or before[0] not in a
    # Both lead nowhere.
    return before[0] != after[0]


def title(node: Mapping[str, Any]) -> str:
    """The title its author gave it, or nothing."""
    return str((node.get("_meta") or {}).get("title") or "")


class _Match:
    """A reading in the making: pairs found so far, each followed along its links."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self.a, self.b = a, b
        self.found: Matched = {}
        self.taken: set[str] = set()
        self._fed_a, self._fed_b = _feeding(a), _feeding(b)

    def pair(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take pairs as they are, where both are still free."""
        for before, after in pairs:
            if before not in self.found and after not in self.taken:
                self.found[before] = after
                self.taken.add(after)

    def pair_by(self, key_a: Callable[[str], Hashable], key_b: Callable[[str], Hashable], *, several: bool = False) -> bool:
        """Pair free nodes of equal key that only one node on each side has; with `several`, as many as there are, in order."""
        left, right = defaultdict(list), defaultdict(list)
        for node in self.a:
            if node not in self.found:
                left[key_a(node)].append(node)
        for node in self.b:
            if node not in self.taken:
                right[key_b(node)].append(node)
        before = len(self.found)
        for key, nodes in left.items():
            others = right.get(key, [])
            if several or (len(nodes) == 1 and len(others) == 1):
                self.pair(zip(nodes, others, strict=False))
        return len(self.found) > before

    def complete(self) -> None:
        """Find the rest, the surest ways first."""
        self._follow(deque(self.found.items()))
        keys: list[Callable[[Graph, dict[str, list[tuple[str, str, int]]]], Callable[[str], Hashable]]] = [_values_key, _title_key, _neighbours_key, _class_key]
        for key in keys:
            known = set(self.found)
            if self.pair_by(key(self.a, self._fed_a), key(self.b, self._fed_b)):
                self._follow(deque((node, self.found[node]) for node in self.found if node not in known))
        # The same id in another class, in the same place of the graph: somebody exchanged the class.
        self.pair([(node, node) for node in self.a if node not in self.found and node in self.b and node not in self.taken and self._same_place(node)])

    def _follow(self, pending: deque[tuple[str, str]]) -> None:
        while pending:
            before, after = pending.popleft()
            near = [*self._sources(before, after), *self._targets(before, after)]
            for pair in near:
                if pair[0] not in self.found and pair[1] not in self.taken and _class(self.a[pair[0]]) == _class(self.b[pair[1]]):
                    self.pair([pair])
                    pending.append(pair)

    def _sources(self, before: str, after: str) -> list[tuple[str, str]]:
        """What feeds the same inputs of both."""
        pairs = []
        other = self.b[after]["inputs"]
        for name, value in self.a[before]["inputs"].items():
            x, y = as_link(value), as_link(other.get(name))
            if x and y and x[0] in self.a and y[0] in self.b:
                pairs.append((x[0], y[0]))
        return pairs

    def _targets(self, before: str, after: str) -> list[tuple[str, str]]:
        """What both feed in the same way, where only one free node on each side is fed so."""
        left, right = defaultdict(list), defaultdict(list)
        for target, name, slot in self._fed_a.get(before, ()):
            if target not in self.found:
                left[_class(self.a[target]), name, slot].append(target)
        for target, name, slot in self._fed_b.get(after, ()):
            if target not in self.taken:
                right[_class(self.b[target]), name, slot].append(target)
        return [(nodes[0], right[key][0]) for key, nodes in left.items() if len(nodes) == 1 and len(right.get(key, ())) == 1]

    def _same_place(self, node: str) -> bool:
        feeds = {(self.found.get(target), name) for target, name, _ in self._fed_a.get(node, ())} & {(t, name) for t, name, _ in self._fed_b.get(node, ())}
        return bool(feeds) or any(self.found.get(x) == y for x, y in self._sources(node, node))


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type") or "")


def _feeding(graph: Graph) -> dict[str, list[tuple[str, str, int]]]:
    """Node → what it feeds: target, input, output slot."""
    fed: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for link in links(graph):
        fed[link.source].append((link.target, link.input, link.slot))
    return dict(fed)


def _literals(node: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in node["inputs"].items() if not as_link(value)}, sort_keys=True, default=str)


def _values_key(graph: Graph, fed: Mapping[str, Any]) -> Callable[[str], Hashable]:
    return lambda node: (_class(graph[node]), title(graph[node]), _literals(graph[node]))


def _title_key(graph: Graph, fed: Mapping[str, Any]) -> Callable[[str], Hashable]:
    return lambda node: (_class(graph[node]), title(graph[node]) or f"untitled {node} of {id(graph)}")


def _neighbours_key(graph: Graph, fed: Mapping[str, list[tuple[str, str, int]]]) -> Callable[[str], Hashable]:
    def key(node: str) -> Hashable:
        above = []
        for name, value in graph[node]["inputs"].items():
            link = as_link(value)
            if link and link[0] in graph:
                above.append((name, _class(graph[link[0]]), link[1]))
        below = [(_class(graph[target]), name, slot) for target, name, slot in fed.get(node, ())]
        return _class(graph[node]), tuple(sorted(above)), tuple(sorted(below))

    return key


def _class_key(graph: Graph, fed: Mapping[str, Any]) -> Callable[[str], Hashable]:
    return lambda node: _class(graph[node])


def _shapes(graph: Graph) -> tuple[dict[str, str], dict[str, str]]:
    """Two fingerprints of every node: itself with all that feeds it, and with all that it feeds. Nodes on a circle count as far as they were reached."""
    fed = _feeding(graph)
    order = _in_order(graph, fed)
    up: dict[str, str] = {}
    itself: dict[str, str] = {}
    for node in order:
        linked = []
        for name, value in graph[node]["inputs"].items():
            link = as_link(value)
            if link:
                linked.append((name, link[1], up.get(link[0], "")))
        itself[node] = _digest(_class(graph[node]), title(graph[node]), _literals(graph[node]))
        up[node] = _digest(itself[node], sorted(linked))
    down: dict[str, str] = {}
    for node in reversed(order):
        down[node] = _digest(itself[node], sorted((name, slot, down.get(target, "")) for target, name, slot in fed.get(node, ())))
    return up, down


def _in_order(graph: Graph, fed: Mapping[str, list[tuple[str, str, int]]]) -> list[str]:
    """Sources before targets; what stands on a circle or behind one comes last."""
    waiting = dict.fromkeys(graph, 0)
    for targets in fed.values():
        for target, _, _ in targets:
            waiting[target] += 1
    order = [node for node, count in waiting.items() if count == 0]
    for node in order:
        for target, _, _ in fed.get(node, ()):
            waiting[target] -= 1
            if waiting[target] == 0:
                order.append(target)
    reached = set(order)
    return order + [node for node in graph if node not in reached]


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
