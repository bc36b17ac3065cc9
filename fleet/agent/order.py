"""What is asked of an engine, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.agent.classify import Failure


@dataclass(frozen=True)
class Order:
    """What to run and within which bounds."""

    graph: Mapping[str, Any]
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    timeout_s: float = 600.0
    stall_s: float = 120.0
    deadline_in_s: float | None = None
    input_nodes: Collection[str] = ()
    max_stream_bytes: int = 256 * 1024**2


@dataclass(frozen=True)
class Classes:
    """What the engine's object_info says of its node classes."""

    outputs: frozenset[str] = frozenset()
    external: frozenset[str] = frozenset()


@dataclass
class Conclusion:
    """How a prompt ended. Without a failure and without `stopped` it succeeded."""

    prompt_id: str
    failure: Failure | None = None
    stopped: str | None = None  # the reason it was stopped for: cancel, lost, ...
    history: Mapping[str, Any] = field(default_factory=dict)
    executed: Mapping[str, Any] = field(default_factory=dict)
    frames: list[tuple[str, bytes]] = field(default_factory=list)
    stuck: bool = False  # the engine still works on it and did not obey the interrupt
    submit_s: float = 0.0
    queue_s: float = 0.0
