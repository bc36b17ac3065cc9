"""How a success rate reads where it is held against a target. Pure."""

from __future__ import annotations

import math

from controlplane.console import numbers

TARGET = 0.95


def success(share: float | None) -> str:
    """Between 90% and 99% with one decimal, cut and not rounded, so that 94.7% never reads as the target of 95%."""
    if share is not None and 0.9 <= share < 0.99:
        return f"{math.floor(share * 1000 + 1e-9) / 10:.1f}%"
    return numbers.pct(share)
