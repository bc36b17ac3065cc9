"""Who is next. Start-time fair queueing (Goyal, Vin and Cheng, 1996) as pure arithmetic.

Each job gets a start tag: the later of the pool's virtual time and its customer's last finish tag.
Its finish tag is the start tag plus its expected work divided by the customer's weight. Serving by
start tag gives each busy customer work in proportion to its weight, and a newcomer waits behind at
most one job of everybody else, however long the others' batches are.
"""

from __future__ import annotations

FRONT = 0
"""Start tag of a job that is put back: in front of its priority class."""

_SCALE = 1_000_000_000  # fine enough that rounding costs a heavy customer with short jobs nothing of its share


def work(*, expected_s: float, weight: int) -> int:
    """What a job adds to its customer's finish tag; at least 1."""
    return max(1, round(max(expected_s, 0.001) * _SCALE / max(weight, 1)))


def start_tag(*, virtual_time: int, finish_tag: int) -> int:
    """Start tag of the next job of a customer whose last finish tag is `finish_tag`."""
    return max(virtual_time, finish_tag, FRONT + 1)
