"""How far a job is, from ComfyUI's events. Pure; the fraction never goes back.

Each node counts for the seconds it took in earlier runs. Missed events do not hurt: every
`progress_state` repeats the state of all nodes seen so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from statistics import median
from typing import Any

CEILING = 0.99  # 1.0 means stored and reported, which only `finish` knows
SMALLEST_WEIGHT_S = 0.001


def needed_nodes(graph: Mapping[str, Any], output_classes: Collection[str] = ()) -> set[str]:
    """Nodes that can run: those an output depends on. Without known outputs, all of them."""
    todo = [n for n, node in graph.items() if isinstance(node, dict) and node.get("class_type") in output_classes]
    if not todo:
        return set(graph)
    found: set[str] = set()
    while todo:
        node_id = todo.pop()
        if node_id in found or node_id not in graph:
            continue
        found.add(node_id)
        inputs = graph[node_id].get("inputs") if isinstance(graph[node_id], dict) else None
        for value in (inputs or {}).values():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
                todo.append(value[0])
    return found


class Progress:
    """The weighted share of a graph that is done."""

    def __init__(self, graph: Mapping[str, Any], weights: Mapping[str, float] | None = None, output_classes: Collection[str] = ()) -> None:
        nodes = needed_nodes(graph, output_classes)
        known = {n: max(float(w), SMALLEST_WEIGHT_S) for n, w in (weights or {}).items() if n in nodes}
        usual = median(known.values()) if known else 1.0
        self._weights = {n: known.get(n, usual) for n in nodes}
        self._total = sum(self._weights.values()) or 1.0
        self._shares: dict[str, float] = dict.fromkeys(nodes, 0.0)
        self._done = 0.0
        self._best = 0.0
        self._sees_states = False
        self.node: str | None = None

    @property
    def fraction(self) -> float:
        return self._best

    def event(self, kind: str, data: Mapping[str, Any]) -> bool:
        """Take one event of our prompt; tell whether the picture changed."""
        before = (self._best, self.node)
        if kind == "execution_cached":
            self._finish(data.get("nodes") or ())
        elif kind == "executing":
            self._enter(data.get("node"))
        elif kind == "progress":
            self._advance(data.get("node"), data.get("value"), data.get("max"))
        elif kind == "executed":
            self._finish([data.get("node")])
        elif kind == "progress_state":
            self._states(data.get("nodes") or {})
        return before != (self._best, self.node)

    def finish(self) -> None:
        """Everything is stored: the only way to 1.0."""
        self._best = 1.0

    def _enter(self, node: Any) -> None:
        if node is None:
            return
        # Servers without progress_state tell the end of a node only by the start of the next.
        if not self._sees_states and self.node is not None and self.node != node:
            self._finish([self.node])
        self.node = str(node)

    def _states(self, nodes: Mapping[str, Any]) -> None:
        self._sees_states = True
        for node_id, state in nodes.items():
            if not isinstance(state, dict):
                continue
            if state.get("state") == "finished":
                self._finish([node_id])
            else:
                self._advance(node_id, state.get("value"), state.get("max"))

    def _finish(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if node in self._shares:
                self._reach(node, 1.0)

    def _advance(self, node: Any, value: Any, maximum: Any) -> None:
        if node not in self._shares or not isinstance(value, int | float) or not isinstance(maximum, int | float) or not maximum > 0:
            return
        self._reach(node, min(max(value / maximum, 0.0), 1.0))

    def _reach(self, node: str, share: float) -> None:
        """Count what is new: every `progress_state` names all nodes again, so adding all of them up for each would take the cube of their number."""
        before = self._shares[node]
        if share > before:
            self._shares[node] = share
            self._done += self._weights[node] * (share - before)
            self._best = max(self._best, min(self._done / self._total, CEILING))
