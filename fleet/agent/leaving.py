"""Why an agent goes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Leaving:
    """Why the agent goes, and its exit code. `tell` is False when nobody listens."""

    reason: str
    message: str
    code: int = 0
    tell: bool = True
