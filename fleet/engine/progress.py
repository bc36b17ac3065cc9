"""How far each node of the running prompt is, as `progress_state` tells it."""

from __future__ import annotations

from typing import Any


class Progress:
    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> dict[str, Any]:
        return self._set(node_id, 0.0, 1.0, "running")

    def update(self, node_id: str, value: float, maximum: float) -> dict[str, Any]:
        return self._set(node_id, value, maximum, "running")

    def finish(self, node_id: str) -> dict[str, Any]:
        """The node ended; one that never started was answered from the cache."""
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        return self._set(node_id, maximum, maximum, "finished")

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        return {"prompt_id": self.prompt_id, "nodes": {key: dict(value) for key, value in self._nodes.items()}}
