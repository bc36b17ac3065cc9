"""So many workers, always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fleet.sizing.seen import Memory, Proposal, Seen


@dataclass(frozen=True, slots=True)
class Static:
    """`size` workers; 0 stands for the pool's maximum."""

    name: ClassVar[str] = "static"
    size: float = 0.0

    def decide(self, seen: Seen, memory: Memory) -> Proposal:
        return Proposal(int(self.size) or seen.maximum, "A fixed size.", "static")
