"""In which order the nodes of a prompt run.

Results should reach a person early, so of the nodes that are ready an output
comes first, then one that feeds an output directly, then one that feeds such a
node; else the one noticed first while walking back from the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)


class Plan:
    """The nodes still to run and what each waits for.

    `sources` holds, for every node, the nodes it takes inputs from, in input order.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[str]],
        outputs: Iterable[str],
        *,
        is_terminal: Callable[[str], bool],
        is_cached: Callable[[str], bool],
    ) -> None:
        self._is_terminal = is_terminal
        self.waiting: dict[str, set[str]] = {}
        for output in outputs:
            self._add(sources, output, is_cached)
        # node -> the nodes that wait for it, kept after it ran because only ready nodes are asked.
        self._feeds: dict[str, list[str]] = {}
        for node_id, needed in self.waiting.items():
            for source in needed:
                self._feeds.setdefault(source, []).append(node_id)

    def _add(self, sources: Mapping[str, Sequence[str]], output: str, is_cached: Callable[[str], bool]) -> None:
        stack = [output]
        while stack:
            node_id = stack.pop()
            if node_id in self.waiting:
                continue
            needed = [source for source in sources[node_id] if not is_cached(source)]
            self.waiting[node_id] = set(needed)
            stack += needed

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def pick(self) -> str:
        """The node to run next; it stays in the plan until `done`."""
        ready = [node_id for node_id, needed in self.waiting.items() if not needed]
        if not ready:
            raise ValueError("the graph has a cycle")
        for reach in range(3):
            for node_id in ready:
                if self._reaches_output(node_id, reach):
                    return node_id
        return ready[0]

    def _reaches_output(self, node_id: str, reach: int) -> bool:
        if reach == 0:
            return self._is_terminal(node_id)
        return any(self._reaches_output(follower, reach - 1) for follower in self._feeds.get(node_id, ()))

    def done(self, node_id: str) -> None:
        """Take a node that ran out of the plan; those that wait for it may follow."""
        del self.waiting[node_id]
        for follower in self._feeds.get(node_id, ()):
            self.waiting[follower].discard(node_id)
