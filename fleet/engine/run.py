"""What a node may use while it runs: its place, its budget, and a way to report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.engine.directories import Directories
from fleet.engine.memory import MemoryBudget


class Interrupted(Exception):
    """Somebody asked the running prompt to stop."""


@dataclass(frozen=True)
class Result:
    """Outputs of a node together with what it shows to people."""

    outputs: tuple[Any, ...] = ()
    ui: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One execution of one node."""

    node_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    directories: Directories
    memory: MemoryBudget
    interrupt: threading.Event
    report_progress: Callable[[float, float], None]
    report_text: Callable[[str], None]

    def claim(self, *shape: int) -> None:
        """Raise the allocation error when a float array of `shape` exceeds the budget."""
        self.memory.claim(*shape)

    def progress(self, value: float, maximum: float) -> None:
        """Tell how far the node is; a node that reports can be interrupted here."""
        if self.interrupt.is_set():
            raise Interrupted
        self.report_progress(value, maximum)
