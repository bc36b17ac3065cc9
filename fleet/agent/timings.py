"""When each node ran, from ComfyUI's events and the agent's clock. Pure: `now` is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class NodeSpan:
    start_s: float
    end_s: float | None = None
    cached: bool = False


class NodeClock:
    """Start and length of every node of one prompt, relative to the start of execution."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._classes = {n: str(node.get("class_type", "")) for n, node in graph.items() if isinstance(node, dict)}
        self._spans: dict[str, NodeSpan] = {}
        self._current: str | None = None
        self._sees_states = False
        self.started_at: float | None = None
        self.ended_at: float | None = None

    def event(self, kind: str, data: Mapping[str, Any], now: float) -> None:
        if self.started_at is None and kind != "status":
            self.started_at = now
        if kind == "execution_cached":
            for node in data.get("nodes") or ():
                self._spans[str(node)] = NodeSpan(self._since(now), self._since(now), cached=True)
        elif kind == "executing":
            self._enter(data.get("node"), now)
        elif kind == "progress_state":
            self._sees_states = True
            for node, state in (data.get("nodes") or {}).items():
                if isinstance(state, dict):
                    self._start(node, now)
                    if state.get("state") == "finished":
                        self._stop(node, now)
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self.end(now)

    def end(self, now: float) -> None:
        """Close what is open; later calls change nothing."""
        if self.ended_at is None:
            self.ended_at = now
            for node in self._spans:
                self._stop(node, now)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "node": node,
                "class_type": self._classes.get(node, ""),
                "start_s": round(span.start_s, 4),
                "run_s": round((span.end_s if span.end_s is not None else span.start_s) - span.start_s, 4),
                "cached": span.cached,
            }
            for node, span in self._spans.items()
        ]

    @property
    def run_s(self) -> float:
        return (self.ended_at - self.started_at) if self.started_at is not None and self.ended_at is not None else 0.0

    @property
    def load_s(self) -> float:
        """Time in loader nodes. Models that ComfyUI moves to the GPU lazily count where they are used."""
        return sum(row["run_s"] for row in self.rows() if "Loader" in row["class_type"])

    def _since(self, now: float) -> float:
        return now - (self.started_at if self.started_at is not None else now)

    def _enter(self, node: Any, now: float) -> None:
        if self._current is not None and not self._sees_states and node != self._current:
            self._stop(self._current, now)
        if node is None:
            self.end(now)
            return
        self._current = str(node)
        self._start(self._current, now)

    def _start(self, node: str, now: float) -> None:
        self._spans.setdefault(node, NodeSpan(self._since(now)))

    def _stop(self, node: str, now: float) -> None:
        span = self._spans.get(node)
        if span is not None and span.end_s is None:
            span.end_s = self._since(now)
