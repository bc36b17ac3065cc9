"""How long to wait before trying again: exponential, capped, with full jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(*, first_s: float = 0.2, factor: float = 2.0, cap_s: float = 10.0, rng: random.Random | None = None) -> Iterator[float]:
    """Endless waits. Jitter keeps a fleet from knocking on a returning control plane at one instant."""
    draw = (rng or random).uniform
    step = first_s
    while True:
        yield draw(step / 2, step)
        step = min(step * factor, cap_s)
